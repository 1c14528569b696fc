// What a GGUF file has in float32 beside matrices of any type, in a directory that is made of one.
// transformers keeps the types of a checkpoint that is quantized already, and computes nothing
// where two of them meet: so the files of weights have all in the matrices' type, and the values as
// they were lie in a file of their own (model::kFloat32Tensors), which only this program reads.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "export/scratch_tensors.h"
#include "model/weight_source.h"

namespace qlora::exporting {

class Float32Beside {
 public:
  // `directory` must exist. What `source`, which must outlive this, has in float32 beside matrices
  // of `dtype` (WeightSource::dtype_of()) is kept.
  Float32Beside(const std::string& directory, const model::WeightSource& source,
                at::ScalarType dtype);

  // A tensor that is in no packed weight, and its name in the model; both as files have them.
  void add(const std::string& name, const std::string& in_files, const at::Tensor& stored);
  // Writes the file, if there is anything for it; whether there is.
  bool finish();

 private:
  std::string directory_;
  const model::WeightSource& source_;
  at::ScalarType dtype_;
  ScratchTensors tensors_;
};

}  // namespace qlora::exporting
