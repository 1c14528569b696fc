#include "model/file_layout.h"

#include <ATen/ATen.h>

namespace qlora::model {
namespace {

std::string renamed(const std::string& tensor, const std::string& from, const std::string& to) {
  if (from.empty() || !tensor.starts_with(from)) return tensor;
  return to + tensor.substr(from.size());
}

}  // namespace

FileLayout::FileLayout(const Architecture& architecture) {
  if (!architecture.head_in_files.empty()) {
    head_ = architecture.head.names.hugging_face + ".";
    head_in_files_ = architecture.head_in_files + ".";
  }
  for_each_linear(architecture, [this](const std::string& module, const LinearSpec& linear) {
    if (linear.stored_by_inputs) by_inputs_.insert(module + ".weight");
  });
}

std::string FileLayout::in_files(const std::string& tensor) const {
  return renamed(tensor, head_, head_in_files_);
}

std::string FileLayout::in_model(const std::string& tensor) const {
  return renamed(tensor, head_in_files_, head_);
}

at::Tensor FileLayout::in_files(const std::string& name, const at::Tensor& tensor) const {
  const bool is_matrix = tensor.is_floating_point() && tensor.dim() == 2;
  return is_matrix && is_by_inputs(name) ? tensor.t() : tensor;
}

}  // namespace qlora::model
