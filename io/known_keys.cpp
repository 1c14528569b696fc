#include "io/known_keys.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/warn_once.h"

namespace qlora::io {

void warn_of_other_keys(const JsonNode& object,
                        std::initializer_list<std::span<const std::string_view>> known) {
  const auto is_known = [&](std::string_view key) {
    return std::ranges::any_of(
        known, [&](const auto& list) { return std::ranges::find(list, key) != list.end(); });
  };
  std::vector<std::string> others;
  for (const auto& [key, value] : object.value().items()) {
    const bool unset = value.is_null() || value == "" || (value.is_structured() && value.empty());
    if (!unset && !is_known(key)) others.push_back(key);
  }
  if (others.empty()) return;
  log::warning_once("{}: keys that this version neither reads nor knows: {}", object.place(),
                    fmt::join(others, ", "));
}

}  // namespace qlora::io
