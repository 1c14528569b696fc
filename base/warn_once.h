// A warning about a file that is opened several times in a run: each text is said once a process.
#pragma once

#include <string>
#include <utility>

#include "base/log.h"

namespace qlora::log {

void write_warning_once(const std::string& line);
// Says one line for each `subject`, the first: of many alike, such as a file's layers.
void write_warning_once_of(const std::string& subject, const std::string& line);

template <typename... Args>
void warning_once(fmt::format_string<Args...> format, Args&&... args) {
  write_warning_once(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void warning_once_of(const std::string& subject, fmt::format_string<Args...> format,
                     Args&&... args) {
  write_warning_once_of(subject, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qlora::log
