#include "io/torch_file/owned_bytes.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace qlora::io {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

}  // namespace

OwnedBytes::~OwnedBytes() {
  for (const std::span<std::byte> piece : pieces_) munmap(piece.data(), piece.size());
}

std::span<std::byte> OwnedBytes::take(size_t count) {
  if (count > rest_.size()) {
    const size_t size = std::max(count, kPieceBytes);
    void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
      fail<IoError>("{} bytes for a tensor cannot be had: {}", size, std::strerror(errno));
    pieces_.emplace_back(static_cast<std::byte*>(address), size);
    rest_ = pieces_.back();
  }
  const std::span<std::byte> taken = rest_.first(count);
  rest_ = rest_.subspan(count);
  return taken;
}

}  // namespace qlora::io
