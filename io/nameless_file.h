// A file without a name: nothing is left of it however the process ends. For bytes that are to lie
// on disk while the program runs (io/scratch_memory.h, io/spill_file.h).
#pragma once

#include <string>

namespace qlora::io {

// Where such a file may lie whoever asks: TMPDIR, else /var/tmp, which keeps large files on a disk
// where /tmp may be memory, else what the system says.
std::string scratch_directory();

// On file systems that only know files with names it has one for a moment,
// "nameless.partial-<random>", by which a kill in that moment is cleared up (remove_partial() of
// io/atomic_write.h).
constexpr const char* kNameless = "nameless";

class NamelessFile {
 public:
  // Empty, open for reading and writing, on the disk of `directory`. IoError (directory, reason).
  explicit NamelessFile(const std::string& directory);
  ~NamelessFile();
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;

  // For system calls; open as long as this object lives. Mappings of the file outlive it.
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace qlora::io
