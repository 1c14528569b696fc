#include "base/cgroup.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "base/proc_file.h"
#include "base/process_limit.h"

namespace qlora {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

// The number in the file's first word; nothing if it is missing or no number ("max").
std::optional<int64_t> number_in(const fs::path& file) {
  std::ifstream stream(file);
  int64_t number = 0;
  if (stream >> number) return number;
  return std::nullopt;
}

// The number in the line "KEY 123" of a memory.stat; 0 without one.
int64_t statistic(const fs::path& file, const std::string& key) {
  std::ifstream stream(file);
  std::string name;
  for (int64_t number = 0; stream >> name >> number;)
    if (name == key) return number;
  return 0;
}

template <typename Number>
void tighten(std::optional<Number>& limit, Number other) {
  limit = limit ? std::min(*limit, other) : other;
}

// A hierarchy that is mounted: where, and which of its groups lies at that place. A container may
// see its own group alone.
struct Mount {
  fs::path point, group;
  bool unified = false;                  // v2
  std::vector<std::string> controllers;  // v1, among other mount options
};

// Lines of mountinfo: id parent major:minor root mount-point options ... - type source options.
std::vector<Mount> mounts(const fs::path& root) {
  std::vector<Mount> found;
  std::ifstream stream(root / "proc/self/mountinfo");
  for (std::string line; std::getline(stream, line);) {
    const std::vector<std::string> fields = split(line, ' ');
    const auto dash = std::ranges::find(fields, "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
    if (dash[1] != "cgroup" && dash[1] != "cgroup2") continue;
    found.push_back({root / fs::path(fields[4]).relative_path(), fields[3], dash[1] == "cgroup2",
                     split(dash[3], ',')});
  }
  return found;
}

// The process's group in the hierarchy of the mount, by /proc/self/cgroup. Lines of it:
// 0::/group (v2), 4:cpu,cpuacct:/group (v1).
std::optional<fs::path> group_in(const Mount& mount, const fs::path& root) {
  std::ifstream stream(root / "proc/self/cgroup");
  for (std::string line; std::getline(stream, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    const bool same = mount.unified ? names.empty()
                                    : std::ranges::any_of(split(names, ','), [&](const auto& name) {
                                        return std::ranges::count(mount.controllers, name) > 0;
                                      });
    if (same) return line.substr(second + 1);
  }
  return std::nullopt;
}

// The folder of the process's group and those of the groups above it, as far as they are mounted.
std::vector<fs::path> group_folders(const Mount& mount, const fs::path& root) {
  const std::optional<fs::path> group = group_in(mount, root);
  if (!group) return {};
  fs::path relative = group->lexically_relative(mount.group);
  // A group outside of what is mounted (/../x of a namespace): its files are not to be seen.
  if (relative.empty() || *relative.begin() == "..") relative.clear();
  std::vector<fs::path> folders = {mount.point};
  for (const fs::path& part : relative)
    if (part != ".") folders.push_back(folders.back() / part);
  return folders;
}

std::optional<double> quota(const fs::path& folder, bool unified) {
  std::optional<int64_t> quota, period;
  if (unified) {
    std::ifstream stream(folder / "cpu.max");
    int64_t first = 0, second = 0;
    if (stream >> first >> second) quota = first, period = second;
  } else {
    quota = number_in(folder / "cpu.cfs_quota_us");
    period = number_in(folder / "cpu.cfs_period_us");
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

// Version 1 writes the largest multiple of a page that fits where there is no limit.
constexpr int64_t kNoLimit = int64_t{1} << 62;

std::optional<int64_t> free_bytes(const fs::path& folder, bool unified) {
  std::optional<int64_t> limit;
  for (const char* name :
       unified ? std::vector{"memory.max", "memory.high"} : std::vector{"memory.limit_in_bytes"})
    if (const auto bytes = number_in(folder / name); bytes && *bytes < kNoLimit)
      tighten(limit, *bytes);
  const auto used = number_in(folder / (unified ? "memory.current" : "memory.usage_in_bytes"));
  if (!limit || !used) return std::nullopt;
  const int64_t cache =
      statistic(folder / "memory.stat", unified ? "inactive_file" : "total_inactive_file");
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *used - cache));
}

}  // namespace

GroupLimits group_limits(const fs::path& root) {
  GroupLimits limits;
  for (const Mount& mount : mounts(root))
    for (const fs::path& folder : group_folders(mount, root)) {
      if (const auto cores = quota(folder, mount.unified)) tighten(limits.cores, *cores);
      if (const auto bytes = free_bytes(folder, mount.unified)) tighten(limits.free_bytes, *bytes);
    }
  return limits;
}

int cores_within(const GroupLimits& limits, int cores) {
  const double most = limits.cores ? std::ceil(*limits.cores) : std::numeric_limits<int>::max();
  return std::max(1, static_cast<int>(std::min<double>(most, cores)));
}

int usable_cores(const fs::path& root) {
  // OpenMP counts the mask as it was before OMP_PROC_BIND narrowed that of this thread.
  return cores_within(group_limits(root), omp_get_num_procs());
}

int64_t usable_memory_bytes(const fs::path& root, int processes) {
  const int64_t available = proc_bytes(root / "proc/meminfo", "MemAvailable:");
  const int64_t shared = std::min(available, group_limits(root).free_bytes.value_or(available));
  const int64_t part = shared / processes;
  const auto own = process_limit(root);
  return own ? std::min(part, own->free_bytes) : part;
}

}  // namespace qlora
