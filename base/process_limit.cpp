#include "base/process_limit.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>

#include "base/proc_file.h"

namespace qlora {
namespace {

namespace fs = std::filesystem;

// The soft limit in the line "NAME   SOFT   HARD   bytes"; nothing if it is "unlimited".
std::optional<int64_t> soft_limit(const fs::path& limits, std::string_view name) {
  std::ifstream lines(limits);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    std::istringstream rest(line.substr(name.size()));
    int64_t bytes = 0;
    if (rest >> bytes) return bytes;
  }
  return std::nullopt;
}

}  // namespace

std::optional<ProcessLimit> process_limit(const fs::path& root) {
  struct Kind {
    const char *option, *name, *used;
  };
  constexpr Kind kKinds[] = {{"-v", "Max address space", "VmSize:"},
                             {"-d", "Max data size", "VmData:"}};
  std::optional<ProcessLimit> nearest;
  for (const Kind& kind : kKinds) {
    const auto bytes = soft_limit(root / "proc/self/limits", kind.name);
    if (!bytes) continue;
    const int64_t left = *bytes - proc_bytes(root / "proc/self/status", kind.used);
    const ProcessLimit limit{kind.option, *bytes, std::max<int64_t>(left, 0)};
    if (!nearest || limit.free_bytes < nearest->free_bytes) nearest = limit;
  }
  return nearest;
}

}  // namespace qlora
