#include "io/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/path_error.h"
#include "io/repeated.h"

namespace qlora::io {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

}  // namespace

OutputFile::OutputFile(std::string path, std::string name)
    : path_(std::move(path)), name_(name.empty() ? path_ : std::move(name)) {
  file_ =
      repeated([&] { return open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666); });
  if (file_ < 0) fail_on("created");
}

OutputFile::~OutputFile() {
  if (file_ >= 0) close(file_);
}

void OutputFile::fail_on(const char* what) const {
  fail_on_path(errno, "{} cannot be {}", name_, what);
}

void OutputFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void OutputFile::write(std::span<const std::byte> bytes) {
  size_ += bytes.size();
  buffer_.append(reinterpret_cast<const char*>(bytes.data()),
                 bytes.size() < kBufferBytes ? bytes.size() : 0);
  if (buffer_.size() >= kBufferBytes || bytes.size() >= kBufferBytes) flush();
  if (bytes.size() < kBufferBytes) return;
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_on("written");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void OutputFile::pad_to(size_t alignment) {
  write(std::string((alignment - size_ % alignment) % alignment, '\0'));
}

void OutputFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t written = ::write(file_, buffer_.data() + done, buffer_.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_on("written");
    done += static_cast<size_t>(written);
  }
  buffer_.clear();
}

void OutputFile::finish() {
  flush();
  if (repeated([&] { return fsync(file_); }) != 0) fail_on("flushed to disk");
  // Interrupted it is closed all the same.
  if (close(std::exchange(file_, -1)) != 0 && errno != EINTR) fail_on("closed");
}

}  // namespace qlora::io
