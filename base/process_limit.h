// What the process itself may have of memory, whatever the machine and its control groups have left
// (base/cgroup.h): `ulimit -v` bounds its addresses (RLIMIT_AS), `ulimit -d` what it may write to
// (RLIMIT_DATA). Some batch systems set them in place of a group's limit. Each process has its own
// and shares them with no other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace qlora {

struct ProcessLimit {
  std::string option;  // of ulimit: "-v", "-d"
  int64_t bytes = 0;
  int64_t free_bytes = 0;  // less what the process has; never negative
};

// Of the limits that are set, the one that is nearest; nothing where none is. `root` stands for /
// in the files that say so (proc/self/limits, proc/self/status).
std::optional<ProcessLimit> process_limit(const std::filesystem::path& root = "/");

}  // namespace qlora
