// That one process at a time writes to a run.
#pragma once

#include <memory>
#include <string>

namespace qlora::recipes {

// The file that is locked where directories cannot be.
constexpr const char* kLockFile = ".lock";

struct RunLock {
  std::shared_ptr<const void> held;  // until the last copy of it goes, or the process ends
  bool is_certain = false;           // false: the file system has no locks, another may be writing
};

// An advisory lock on the directory (flock), or on a file in it where the file system refuses that
// (NFS). ConfigError if another process holds it. Warns where there are no locks at all.
RunLock lock_run(const std::string& directory);

}  // namespace qlora::recipes
