#include "io/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "io/repeated.h"

namespace qlora::io {

namespace {

[[noreturn]] void fail_to_open(const std::string& path) {
  fail<IoError>("{} cannot be written: {}; check the folder's permissions and the free space", path,
                std::strerror(errno));
}

}  // namespace

void require_appendable(const std::string& path) {
  const int file = repeated([&] { return open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC); });
  if (file < 0 && errno != ENOENT) fail_to_open(path);
  if (file >= 0) close(file);
}

AppendFile::AppendFile(std::string path, Existing existing) : path_(std::move(path)) {
  const int exclusive = existing == Existing::kRefuse ? O_EXCL : 0;
  file_ = repeated([&] {
    return open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | exclusive, 0666);
  });
  if (file_ < 0) fail_to_open(path_);
}

AppendFile::~AppendFile() { close(file_); }

void AppendFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail<IoError>("{} cannot be written: {}", path_, std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void AppendFile::sync() {
  if (repeated([&] { return fsync(file_); }) != 0)
    fail<IoError>("{} cannot be flushed to disk: {}", path_, std::strerror(errno));
}

}  // namespace qlora::io
