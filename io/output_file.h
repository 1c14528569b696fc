// A file being written, whose every failure is an IoError with path and reason, and which is on the
// disk once it is closed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace qlora::io {

class OutputFile {
 public:
  // Creates or empties the file. `name`: what errors call it, where its path is a passing one.
  explicit OutputFile(std::string path, std::string name = "");
  ~OutputFile();  // closes without a word
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Zero bytes up to a multiple of `alignment` of the file's size.
  void pad_to(size_t alignment);
  // Hands what was written to the system, without waiting for the disk.
  void flush();
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // fsync and close.
  void finish();

 private:
  [[noreturn]] void fail_on(const char* what) const;

  std::string path_, name_, buffer_;
  size_t size_ = 0;
  int file_ = -1;
};

}  // namespace qlora::io
