// Patterns of which the first that matches a name decides about it, and those that decide nothing.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/ordered_map.h"

namespace qlora {

struct IdlePattern {
  std::string pattern;
  bool matches;  // names, all of which earlier ones take
};

// In their order; `matches(pattern, name)`.
template <typename Value, typename Matches>
std::vector<IdlePattern> find_idle_patterns(const OrderedMap<Value>& patterns,
                                            const std::vector<std::string>& names,
                                            const Matches& matches) {
  std::vector<IdlePattern> idle;
  std::vector<std::string> left = names;  // that no pattern has matched so far
  for (const auto& [pattern, value] : patterns) {
    const auto matches_it = [&, &own = pattern](const std::string& name) {
      return matches(own, name);
    };
    if (std::erase_if(left, matches_it) == 0)
      idle.push_back({pattern, std::ranges::any_of(names, matches_it)});
  }
  return idle;
}

// Of one that matches; `what`: what the names are of, in the plural.
inline std::string idle_pattern_sentence(const std::string& key, const std::string& pattern,
                                         const std::string& what) {
  return fmt::format(
      "{}: '{}' decides nothing: the first key that matches does, and earlier ones take all of its "
      "{}; write it before them, or leave it out",
      key, pattern, what);
}

}  // namespace qlora
