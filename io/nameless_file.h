// A file without a name: nothing is left of it however the process ends. For bytes that are to lie
// on disk while the program runs (io/scratch_memory.h, io/spill_file.h).
#pragma once

#include <string>

namespace qlora::io {

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
