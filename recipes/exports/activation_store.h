// The residual streams of the calibration sequences between two layers, in host memory or, where
// that is too small for them, in a mapped file (io/scratch_memory.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/scratch_memory.h"

namespace qlora::recipes {

class ActivationStore {
 public:
  // tokens: of each sequence. `most_bytes`: what may lie in memory; beyond it all of them lie in a
  // file of `directory`. IoError.
  ActivationStore(const std::vector<int64_t>& tokens, int64_t width, int64_t most_bytes,
                  const std::string& directory);

  // fp32 [tokens, width] on the CPU, a view.
  at::Tensor of_sequence(size_t index) const;
  bool in_file() const { return file_ != nullptr; }
  int64_t bytes() const { return static_cast<int64_t>(all_.nbytes()); }

 private:
  std::vector<int64_t> tokens_, first_row_;
  std::unique_ptr<io::ScratchMemory> file_;
  at::Tensor all_;  // the sequences one below the other
};

}  // namespace qlora::recipes
