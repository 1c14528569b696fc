#include "io/read_rate.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/path_error.h"
#include "base/stopwatch.h"

namespace qlora::io {
namespace {

constexpr int64_t kPiece = 4 << 20, kMostPieces = 16;
constexpr double kSeconds = 0.3;

class OpenFile {
 public:
  explicit OpenFile(const std::string& path)
      : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) fail_reading();
  }
  ~OpenFile() { close(file_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int64_t size() const {
    struct stat status {};
    if (fstat(file_, &status) != 0) fail_reading();
    return status.st_size;
  }
  // Has the system drop what it holds of the piece.
  void forget(int64_t offset, int64_t size) const {
    posix_fadvise(file_, offset, size, POSIX_FADV_DONTNEED);
  }
  void read(int64_t offset, int64_t size, std::byte* to) const {
    while (size > 0) {
      const ssize_t count = pread(file_, to, static_cast<size_t>(size), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail_reading();
      if (count == 0) return;  // shorter than it was
      to += count;
      offset += count;
      size -= count;
    }
  }

 private:
  [[noreturn]] void fail_reading() const { fail_on_path(errno, "{} cannot be read", path_); }

  const std::string& path_;
  int file_;
};

}  // namespace

double read_rate(const std::string& path) {
  const OpenFile file(path);
  const int64_t size = file.size();
  if (size == 0) fail<IoError>("{} is empty; there is nothing to read from it", path);
  const int64_t pieces = std::clamp<int64_t>(size / kPiece, 1, kMostPieces);
  const int64_t piece = std::min(size, kPiece);
  std::vector<std::byte> buffer(static_cast<size_t>(piece));
  double seconds = 0;
  int64_t bytes = 0;
  for (int64_t i = 0; i < pieces && seconds < kSeconds; ++i) {
    const int64_t offset = (size - piece) / pieces * i;
    file.forget(offset, piece);
    const Stopwatch watch;
    file.read(offset, piece, buffer.data());
    seconds += watch.seconds();
    bytes += piece;
  }
  return static_cast<double>(bytes) / std::max(seconds, std::numeric_limits<double>::min());
}

}  // namespace qlora::io
