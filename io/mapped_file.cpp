#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "base/path_error.h"
#include "io/repeated.h"

namespace qlora::io {

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path, WhenChanged when) {
  const std::shared_ptr<MappedFile> mapped(new MappedFile());  // to own what is mapped at once
  mapped->path_ = path;
  const int file = repeated([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (file < 0) fail_on_path(errno, "{} cannot be opened", path);
  struct stat status {};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file);
    fail<PathError>("{} must be a file", path);
  }
  if (status.st_size == 0) {
    close(file);
    fail<FormatError>("{} is empty", path);
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const int error = errno;
  close(file);
  if (address == MAP_FAILED) {
    fail<IoError>("{} cannot be mapped into memory: {}", path, std::strerror(error));
  }
  mapped->bytes_ = {static_cast<const std::byte*>(address), size};
  mapped->known_ = std::make_unique<LiveMapping>(mapped->bytes_, path,
                                                 when == WhenChanged::kRefuse ? &status : nullptr);
  return mapped;
}

MappedFile::~MappedFile() {
  known_.reset();  // before the addresses can be another's
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

namespace {

uintptr_t page_size() {
  static const auto size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// For the pages that lie wholly within the bytes.
void advise_within(std::span<const std::byte> bytes, int advice) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t first = (begin + page_size() - 1) / page_size() * page_size();
  const uintptr_t last = end / page_size() * page_size();
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, advice);
}

// For the pages that hold some of them.
void advise_around(std::span<const std::byte> bytes, int advice) {
  if (bytes.empty()) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t first = begin / page_size() * page_size();
  madvise(reinterpret_cast<void*>(first), end - first, advice);
}

}  // namespace

void drop_pages(std::span<const std::byte> bytes) { advise_within(bytes, MADV_DONTNEED); }

void drop_touched_pages(std::span<const std::byte> bytes) { advise_around(bytes, MADV_DONTNEED); }

void read_ahead(std::span<const std::byte> bytes) { advise_around(bytes, MADV_WILLNEED); }

}  // namespace qlora::io
