// The weights of a Hugging Face directory: one model.safetensors, or shards of at most 5 GB with an
// index. weight_stream.h writes the same where sizes are not known beforehand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace qlora::exporting {

constexpr int64_t kShardBytes = 5'000'000'000;
inline const std::map<std::string, std::string> kWeightFileMetadata = {{"format", "pt"}};

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
                        const std::string& purpose, int64_t shard_bytes = kShardBytes);

// What both writers agree on. The tensor as it is written, contiguous on the CPU:
at::Tensor stored_value(const std::string& name, const at::Tensor& value, at::ScalarType dtype);
// "model.safetensors" if there is one file, "model-00001-of-00003.safetensors";
std::string weight_file_name(size_t index, size_t count);
// model.safetensors.index.json over the names in each of several files.
void write_weight_index(const std::string& directory,
                        const std::vector<std::vector<std::string>>& names, int64_t total_bytes);

}  // namespace qlora::exporting
