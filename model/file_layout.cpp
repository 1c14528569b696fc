#include "model/file_layout.h"

#include <ATen/ATen.h>

namespace qlora::model {
namespace {

// Where `part` stands in the path as whole components: "mlp" in "layers.0.mlp.gate".
size_t find_part(const std::string& path, const std::string& part) {
  for (size_t at = path.find(part); at != std::string::npos; at = path.find(part, at + 1)) {
    const size_t end = at + part.size();
    const bool begins = at == 0 || path[at - 1] == '.';
    if (begins && (end == path.size() || path[end] == '.')) return at;
  }
  return std::string::npos;
}

std::string with_part(const std::string& path, const std::string& from, const std::string& to) {
  const size_t at = find_part(path, from);
  return at == std::string::npos ? path : std::string(path).replace(at, from.size(), to);
}

}  // namespace

FileLayout::FileLayout(const Architecture& architecture) : names_(architecture.file_names) {
  for_each_linear(architecture, [this](const std::string& module, const LinearSpec& linear) {
    if (linear.stored_by_inputs) by_inputs_.insert(module + ".weight");
  });
}

std::string FileLayout::in_files(const std::string& tensor) const {
  std::string name = tensor;
  for (const FileName& n : names_) name = with_part(name, n.module, n.file);
  return name;
}

std::string FileLayout::in_model(const std::string& tensor) const {
  std::string name = tensor;
  for (const FileName& n : names_) name = with_part(name, n.file, n.module);
  return name;
}

at::Tensor FileLayout::in_files(const std::string& name, const at::Tensor& tensor) const {
  const bool is_matrix = tensor.is_floating_point() && tensor.dim() == 2;
  return is_matrix && is_by_inputs(name) ? tensor.t() : tensor;
}

}  // namespace qlora::model
