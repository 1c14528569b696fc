// What stands at the foot of a page.
#pragma once

#include <fmt/format.h>

#include <ctime>
#include <string>

namespace qlora::cli {

// "Made by qlora 0.1.0 on 2026-11-29 14:00."
inline std::string page_line() {
  const std::time_t now = std::time(nullptr);
  std::tm time{};
  localtime_r(&now, &time);
  char text[32];
  const size_t size = std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M", &time);
  return fmt::format("Made by qlora {} on {}.", QLORA_VERSION, std::string_view(text, size));
}

}  // namespace qlora::cli
