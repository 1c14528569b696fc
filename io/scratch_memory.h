// Memory for intermediate results that are larger than what the process is to keep in RAM: a mapped
// file that has no name any more, so that nothing is left of it however the process ends. The
// system writes its pages out and takes them back as it needs the room.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "io/live_mappings.h"

namespace qlora::io {

class ScratchMemory {
 public:
  // `bytes` > 0 of zeros in a file of `directory`, all of which is reserved at once. IoError.
  ScratchMemory(const std::string& directory, size_t bytes);
  ~ScratchMemory();
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
  std::optional<const LiveMapping> known_;
};

}  // namespace qlora::io
