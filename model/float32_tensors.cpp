#include "model/float32_tensors.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/compare_rows.h"
#include "base/error.h"
#include "io/safetensors.h"
#include "model/read_tensor.h"
#include "model/tensor_spellings.h"
#include "model/weight_files.h"
#include "quant/tensor_file.h"

namespace qlora::model {
namespace fs = std::filesystem;

void Float32Tensors::take_from(const std::string& directory, at::ScalarType type,
                               io::TensorFile& weights) {
  const std::string path = (fs::path(directory) / kFloat32Tensors).string();
  if (!fs::exists(path))
    fail<FormatError>(
        "{} is not there, and config.json says by its key {} that it holds what this model has in "
        "float32; copy it from the directory that the weights were written in, or take the key out "
        "to use the values rounded to 16 bits, which an adapter trained on this base does not fit",
        path, kFloat32Beside);
  type_ = type;
  for (const io::TensorView& tensor : io::read_safetensors(path).tensors) {
    const auto found = weights.index.find(tensor.name);
    io::TensorView* rounded =
        found == weights.index.end() ? nullptr : &weights.tensors[found->second];
    if (!rounded || tensor.dtype != io::DType::kF32 || rounded->shape != tensor.shape ||
        rounded->dtype != quant::file_dtype(type))
      fail<FormatError>(
          "{}: the tensor {} must be in float32, and lie in the files of weights with the same "
          "shape, rounded; write the directory again, or copy both from where they were written",
          path, tensor.name);
    rounded_.tensors.push_back(*rounded);
    *rounded = tensor;
  }
  rounded_.index_tensors();
}

void Float32Tensors::name_as_transformers_does(const Architecture& architecture) {
  model::name_as_transformers_does(architecture, rounded_);
}

void Float32Tensors::require_as_rounded(const io::TensorView& tensor) const {
  const io::TensorView* rounded = rounded_.find(tensor.name);
  if (!rounded || tensor.shape.empty()) return;
  const auto are_equal = [&](int64_t first, int64_t count) {
    return at::equal(read_rows(tensor, first, count, type_),
                     read_rows(*rounded, first, count, type_));
  };
  if (!all_rows(tensor.shape.front(), are_equal))
    fail<FormatError>(
        "{}: the tensor {} rounded is not that of {}, which has been changed since they were "
        "written; take {} out of config.json to use what lies there now",
        tensor.file, tensor.name, rounded->file, kFloat32Beside);
}

}  // namespace qlora::model
