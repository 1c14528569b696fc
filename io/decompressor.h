// Archives that hold one stream of bytes, unpacked a piece at a time: gzip (RFC 1952, by zlib) and
// Zstandard (RFC 8878, by libzstd). Several archives of one kind may follow on each other, as `cat`
// and tools that pack in parallel join them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qlora::io {

class Decompressor {
 public:
  struct Step {
    size_t taken = 0, given = 0;  // bytes from the beginning of `packed` and of `bytes`
    std::string fault;            // why it cannot go on behind the bytes taken; empty: it can
  };

  virtual ~Decompressor() = default;

  // "gzip"
  virtual const char* name() const = 0;
  // Unpacks from `packed` into `bytes` until one of the two is used up or an archive ends.
  virtual Step unpack(std::string_view packed, std::span<char> bytes) = 0;
  // Whether the bytes taken so far are whole archives.
  virtual bool is_complete() const = 0;
};

std::unique_ptr<Decompressor> make_gzip_decompressor();
std::unique_ptr<Decompressor> make_zstandard_decompressor();

// For what begins with these bytes, of which four are enough; nullptr if that is no such archive.
std::unique_ptr<Decompressor> make_decompressor(std::string_view first_bytes);

}  // namespace qlora::io
