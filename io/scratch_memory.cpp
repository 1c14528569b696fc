#include "io/scratch_memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "io/atomic_write.h"

namespace qlora::io {

ScratchMemory::ScratchMemory(const std::string& directory, size_t bytes) {
  require_free_space(directory, bytes, "intermediate results");
  std::string path = (std::filesystem::path(directory) / "scratch-XXXXXX").string();
  const int file = mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) fail<IoError>("no file can be made in {}: {}", directory, std::strerror(errno));
  unlink(path.c_str());
  if (const int error = posix_fallocate(file, 0, static_cast<off_t>(bytes)); error != 0) {
    close(file);
    fail<IoError>("{} bytes cannot be reserved in {}: {}", bytes, directory, std::strerror(error));
  }
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (address == MAP_FAILED)
    fail<IoError>("a file in {} cannot be mapped into memory: {}", directory, std::strerror(error));
  bytes_ = {static_cast<std::byte*>(address), bytes};
}

ScratchMemory::~ScratchMemory() { munmap(bytes_.data(), bytes_.size()); }

}  // namespace qlora::io
