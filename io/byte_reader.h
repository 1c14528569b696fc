// The bytes of a file from its beginning to its end, a piece at a time. A gzip or Zstandard
// archive, told by its first bytes whatever its name, is unpacked on the way.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "io/decompressor.h"

namespace qlora::io {

// Every member function throws IoError if the file cannot be read, and FormatError with the file
// and the offset in it if an archive is damaged or ends too early.
class ByteReader {
 public:
  explicit ByteReader(std::string path);

  const std::string& path() const { return path_; }
  bool is_packed() const { return decompressor_ != nullptr; }

  // The next bytes, `count` of them or, at the end of the file, fewer. They stay to be read, and
  // are valid until the next call.
  std::string_view peek(size_t count);
  // Leaves out bytes that peek() has shown.
  void skip(size_t count) { begin_ += count; }

  // The next byte as 0 to 255, -1 at the end; without moving on, and moving on.
  int peek_byte() {
    return begin_ < buffer_.size() || fill() ? static_cast<unsigned char>(buffer_[begin_]) : -1;
  }
  int next_byte() {
    const int byte = peek_byte();
    begin_ += byte >= 0;
    return byte;
  }

  // The bytes up to the next '\n', which is taken and left out, or to the end; false at the end.
  bool line(std::string& line);
  // All that is left.
  std::string rest();

 private:
  bool fill();
  bool unpack_more();
  void read_packed();
  std::string_view buffered() const { return std::string_view(buffer_).substr(begin_); }

  std::string path_;
  std::ifstream file_;
  std::string buffer_;  // read, from begin_ on not yet given
  size_t begin_ = 0;
  std::unique_ptr<Decompressor> decompressor_;
  std::string packed_;  // read, from packed_begin_ on not yet unpacked
  size_t packed_begin_ = 0;
  int64_t packed_offset_ = 0;  // in the file, of packed_[packed_begin_]
};

}  // namespace qlora::io
