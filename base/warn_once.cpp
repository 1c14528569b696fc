#include "base/warn_once.h"

#include <mutex>
#include <set>

namespace qlora::log {

void write_warning_once(const std::string& line) { write_warning_once_of(line, line); }

void write_warning_once_of(const std::string& subject, const std::string& line) {
  static std::mutex mutex;
  static std::set<std::string> said;
  {
    const std::lock_guard lock(mutex);
    if (!said.insert(subject).second) return;
  }
  write_warning(line);
}

}  // namespace qlora::log
