// What the operating system lets this process use of the machine: processors by the affinity mask
// and the CPU quota of its control groups, memory by what is available and the groups' limits. A
// container, a batch job or a systemd slice sets these bounds; the machine's own size says nothing
// about them.
//
// A process belongs to one group a hierarchy, and the limits of all groups above it hold as well.
// Both versions are read, also side by side:
//
//            processors                              memory
//   v2       cpu.max                                 memory.max, memory.high, memory.current
//   v1       cpu.cfs_quota_us / cpu.cfs_period_us    memory.limit_in_bytes, memory.usage_in_bytes
//
// (Linux: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, scheduler/sched-bwc.rst.)
// A file that is missing or says "max" or -1 sets no limit. `root` stands for / in all of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace qlora {

// The tightest limits of the process's groups; nothing where no group sets one.
struct GroupLimits {
  std::optional<double> cores;
  // The limit less what the group uses; page cache that the kernel would drop first
  // (inactive_file) counts as free, as it does in MemAvailable. Never negative.
  std::optional<int64_t> free_bytes;
};
GroupLimits group_limits(const std::filesystem::path& root = "/");

// How many threads can run at once on `cores` processors under the limits: a quota of 1.5 keeps two
// threads three quarters busy, which is more than one thread, so it is rounded up. At least 1.
int cores_within(const GroupLimits& limits, int cores);

// The processors of the affinity mask that the process started with, within its groups' limits.
int usable_cores(const std::filesystem::path& root = "/");

// Memory that each of `processes` like this one, which share the machine, can still take:
// MemAvailable, or less where a group's limit or the process's own (base/process_limit.h) comes
// first.
int64_t usable_memory_bytes(const std::filesystem::path& root = "/", int processes = 1);

}  // namespace qlora
