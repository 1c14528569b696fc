// A warning about a file that is opened several times in a run: each text is said once a process.
#pragma once

#include <string>
#include <utility>

#include "base/log.h"

namespace qlora::log {

void write_warning_once(const std::string& line);

template <typename... Args>
void warning_once(fmt::format_string<Args...> format, Args&&... args) {
  write_warning_once(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qlora::log
