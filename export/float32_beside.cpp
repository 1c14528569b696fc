#include "export/float32_beside.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "export/weight_files.h"
#include "model/weight_files.h"

namespace qlora::exporting {
namespace fs = std::filesystem;

Float32Beside::Float32Beside(const std::string& directory, const model::WeightSource& source,
                             at::ScalarType dtype)
    : directory_(directory),
      source_(source),
      dtype_(dtype),
      tensors_((fs::path(directory) / "float32.scratch").string()) {}

void Float32Beside::add(const std::string& name, const std::string& in_files,
                        const at::Tensor& stored) {
  const at::ScalarType type = source_.dtype_of(name, dtype_);
  if (type != dtype_) tensors_.add(in_files, stored_value(in_files, stored, type));
}

bool Float32Beside::finish() {
  if (tensors_.empty()) return false;
  tensors_.move_to((fs::path(directory_) / model::kFloat32Tensors).string(),
                   "the tensors in float32");
  return true;
}

}  // namespace qlora::exporting
