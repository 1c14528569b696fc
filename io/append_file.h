// A file that grows by appending, a piece a system call: after a kill it ends with a whole piece or
// with the begin of one.
#pragma once

#include <string>
#include <string_view>

namespace qlora::io {

class AppendFile {
 public:
  enum class Existing { kContinue, kRefuse };
  // Opens or creates. IoError if it cannot be written, and with kRefuse if it is there already.
  explicit AppendFile(std::string path, Existing existing = Existing::kContinue);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // IoError with path and reason.
  void append(std::string_view bytes);
  // Waits until all of it is on the disk.
  void sync();

 private:
  std::string path_;
  int file_ = -1;
};

// IoError, as AppendFile's, if the file is there and cannot be appended to. Creates nothing.
void require_appendable(const std::string& path);

}  // namespace qlora::io
