#include "io/scratch_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/nameless_file.h"

namespace qlora::io {

ScratchMemory::ScratchMemory(const std::string& directory, size_t bytes) {
  require_free_space(directory, bytes, "intermediate results");
  const NamelessFile file(directory);
  if (const int error = posix_fallocate(file.descriptor(), 0, static_cast<off_t>(bytes));
      error != 0)
    fail<IoError>("{} bytes cannot be reserved in {}: {}", bytes, directory, std::strerror(error));
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor(), 0);
  if (address == MAP_FAILED)
    fail<IoError>("a file in {} cannot be mapped into memory: {}", directory, std::strerror(errno));
  bytes_ = {static_cast<std::byte*>(address), bytes};
  known_.emplace(bytes_, directory);  // allocates nothing: what is mapped is not lost
}

ScratchMemory::~ScratchMemory() {
  known_.reset();
  munmap(bytes_.data(), bytes_.size());
}

}  // namespace qlora::io
