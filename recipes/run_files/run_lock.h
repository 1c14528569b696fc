// That one process at a time writes to a run.
#pragma once

#include <memory>
#include <string>

namespace qlora::recipes {

// The file that is locked where directories cannot be.
constexpr const char* kLockFile = ".lock";

struct RunLock {
  std::shared_ptr<const void> held;  // until the last copy of it goes, or the process ends
  bool is_certain = false;           // false: a process on another machine may be writing
};

// flock(2): takes a lock on an open file without waiting; -1 and errno where it does not.
using TakeLock = int (*)(int file, int operation);

// An advisory lock on the directory (flock), or on a file in it where the file system refuses that
// (NFS). ConfigError if another process holds it. Where there are no locks at all, a name that the
// kernel gives to one process at a time keeps the processes of this machine apart, and a warning
// says that it does so for no other machine.
RunLock lock_run(const std::string& directory);
RunLock lock_run(const std::string& directory, TakeLock take_lock);

}  // namespace qlora::recipes
