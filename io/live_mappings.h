// The files of which parts are mapped now. Who reads such memory makes no system call that could
// fail: what becomes of the file meanwhile, a shorter one or one with other bytes, shows here.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace qlora::io {

// One mapping, for as long as this object lives. There is room for 512; those beyond are not known
// here.
class LiveMapping {
 public:
  // A file that nobody is to change meanwhile; `status` is what fstat() said as it was opened.
  // Null: one that require_mapped_unchanged() leaves alone.
  LiveMapping(std::span<const std::byte> bytes, const std::string& path, const struct stat* status);
  // A file of this program without a name, which lies on the disk of `directory`.
  LiveMapping(std::span<const std::byte> bytes, const std::string& directory);
  ~LiveMapping();
  LiveMapping(const LiveMapping&) = delete;
  LiveMapping& operator=(const LiveMapping&) = delete;

 private:
  int slot_ = -1;
};

// While it lives, a mapped file of the size that it had counts as unchanged in spite of another
// time of its last change if `are_same` finds that the bytes which were read are those that are
// mapped: a time stamp alone may be set. It is asked once for each such time. Of several the last
// one made counts.
class MappedBytesCheck {
 public:
  explicit MappedBytesCheck(std::function<bool()> are_same);
  ~MappedBytesCheck();
  MappedBytesCheck(const MappedBytesCheck&) = delete;
  MappedBytesCheck& operator=(const MappedBytesCheck&) = delete;

 private:
  std::function<bool()> before_;
};

// IoError, which names the file, if one that is mapped now is not as it was when it was opened, by
// its size and the time of its last change, unless a MappedBytesCheck knows better. A file that
// another has taken the place of stays what it was for those who have it mapped.
void require_mapped_unchanged();

// Has the process end with exit code 1 and a line that names the file when mapped bytes are no
// longer there (SIGBUS): the file became shorter, or its disk failed. Such a signal of any other
// memory has the effect that it has without this. For the begin of the program.
void report_lost_mappings();

}  // namespace qlora::io
