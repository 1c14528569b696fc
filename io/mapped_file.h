// A file mapped read-only into memory: pages come from disk when touched and may be dropped again.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "io/live_mappings.h"

namespace qlora::io {

// What becomes of results when somebody writes to the file meanwhile (io/live_mappings.h).
enum class WhenChanged { kRefuse, kIgnore };

class MappedFile {
 public:
  // IoError if the file cannot be opened or mapped; FormatError if it is empty.
  static std::shared_ptr<const MappedFile> open(const std::string& path,
                                                WhenChanged when = WhenChanged::kRefuse);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile() = default;
  std::string path_;
  std::span<const std::byte> bytes_;
  std::unique_ptr<const LiveMapping> known_;
};

// Lets the system take back the pages that lie wholly within `bytes` of a mapped file: they count
// for the process's memory no more and are read again when touched. A hint; never fails.
void drop_pages(std::span<const std::byte> bytes);
// The same of every page that holds some of them, for mapped bytes whose neighbours may be read
// again.
void drop_touched_pages(std::span<const std::byte> bytes);
// Has the system read the pages that hold `bytes` of a mapped file, ahead of their use. A hint as
// well.
void read_ahead(std::span<const std::byte> bytes);

}  // namespace qlora::io
