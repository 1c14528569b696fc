// The weights of a Hugging Face directory whose sizes are known only once each was made: the
// scales' offset stands as text in the file's header, as long as its digits. Bytes and names of the
// files are those of write_weight_files(), and one tensor is in memory (ScratchTensors).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "export/scratch_tensors.h"
#include "export/weight_files.h"

namespace qlora::exporting {

class WeightStream {
 public:
  // `directory` must exist; `purpose` is for the message when the disk is too small.
  WeightStream(std::string directory, std::string purpose, int64_t shard_bytes = kShardBytes);

  // The next tensor, converted to dtype. IoError; Error if a floating tensor is not finite in it.
  void add(const std::string& name, const at::Tensor& value, at::ScalarType dtype);
  // Closes the last shard and gives all of them their names.
  void finish();

 private:
  void close_shard();

  std::string directory_, purpose_;
  int64_t shard_bytes_, in_shard_ = 0;
  ScratchTensors scratch_;                       // of the shard being filled
  std::vector<std::vector<std::string>> names_;  // of each closed shard
  int64_t total_ = 0;
};

}  // namespace qlora::exporting
