// Bytes of tensors that do not lie in the file as they are wanted. drop_pages() may be called on
// them as on those of a mapped file: the pages are shared anonymous memory, which keeps what it
// holds, where private memory would be zero afterwards.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace qlora::io {

class OwnedBytes {
 public:
  OwnedBytes() = default;
  ~OwnedBytes();
  OwnedBytes(const OwnedBytes&) = delete;
  OwnedBytes& operator=(const OwnedBytes&) = delete;

  // `count` bytes, which are zero and live as long as this object. IoError if there is no memory.
  std::span<std::byte> take(size_t count);

 private:
  std::vector<std::span<std::byte>> pieces_;
  std::span<std::byte> rest_;  // of the last piece
};

}  // namespace qlora::io
