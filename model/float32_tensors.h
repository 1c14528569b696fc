// The tensors in float32 beside the weights of a directory that was made of a GGUF file
// (kFloat32Beside), in the place of those that its files of weights have rounded.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "io/tensor_file.h"
#include "model/architecture.h"

namespace qlora::model {

class Float32Tensors {
 public:
  // Makes `weights`, those of a directory in which tensors have the names of the files, have the
  // tensors of the file beside. `type`: that they are rounded to. FormatError if there is no such
  // file, or if it has others than the weights.
  void take_from(const std::string& directory, at::ScalarType type, io::TensorFile& weights);
  // After name_as_transformers_does() of the weights.
  void name_as_transformers_does(const Architecture& architecture);
  // FormatError if the tensor is one of them and the files of weights have another than it rounded:
  // something has changed one of them since.
  void require_as_rounded(const io::TensorView& tensor) const;

 private:
  at::ScalarType type_ = at::kFloat;
  io::TensorFile rounded_;  // as they are in the files of weights
};

}  // namespace qlora::model
