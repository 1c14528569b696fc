// Bytes that lie on disk instead of in memory for as long as the program needs them: appended once,
// read through a mapping, whose pages may be dropped (io/mapped_file.h). The file has no name, so
// that the system removes it with the program, however that ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/live_mappings.h"
#include "io/nameless_file.h"

namespace qlora::io {

// Of the next part of a file that is mapped as one, behind `offset` bytes and for `at_least` more:
// a larger one the larger the file is, so that io/live_mappings.h has room for all parts.
int64_t spill_region_bytes(int64_t offset, int64_t at_least);

class SpillFile {
 public:
  // In `directory`, which is made if it is not there. IoError if no file can be made there, or if
  // fewer than `planned_bytes` are free on its disk.
  SpillFile(const std::string& directory, int64_t planned_bytes);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  // Where the bytes lie now, at a multiple of 64; as long as the file lives. IoError if the disk is
  // full.
  std::span<const std::byte> append(std::span<const std::byte> bytes);
  // The next bytes begin a page.
  void begin_page();
  // Of all that was appended.
  int64_t bytes() const { return bytes_; }

 private:
  // A part of the file that is mapped as one, grown with room for bytes to come.
  struct Region {
    std::byte* address;
    int64_t offset, size, used;
    std::unique_ptr<const LiveMapping> known;
  };
  void add_region(int64_t at_least);

  std::string directory_;
  NamelessFile file_;
  int64_t bytes_ = 0;
  std::vector<Region> regions_;
};

}  // namespace qlora::io
