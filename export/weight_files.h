// The weights of a Hugging Face directory: one model.safetensors, or shards of at most 5 GB with an
// index.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qlora::exporting {

// A tensor to be written, made when its turn comes.
struct WeightPart {
  std::string name;
  std::vector<int64_t> shape;
  at::ScalarType dtype;
  std::function<at::Tensor()> make;  // of this shape; converted to dtype
};

// Into `directory`, which must exist, one tensor in memory at a time. `purpose` is for the message
// when the disk is too small. Error if a floating tensor is not finite in its dtype.
void write_weight_files(const std::string& directory, const std::vector<WeightPart>& parts,
                        const std::string& purpose);

}  // namespace qlora::exporting
