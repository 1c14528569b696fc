#include "base/warn_once.h"

#include <mutex>
#include <set>

namespace qlora::log {

void write_warning_once(const std::string& line) {
  static std::mutex mutex;
  static std::set<std::string> said;
  {
    const std::lock_guard lock(mutex);
    if (!said.insert(line).second) return;
  }
  write_warning(line);
}

}  // namespace qlora::log
