#include "lora/targets.h"

#include <algorithm>
#include <regex>
#include <set>

#include <fmt/ranges.h>

#include "base/error.h"

namespace qlora::lora {
namespace {

bool matches(const std::string& pattern, const std::string& name) {
  if (pattern == "all-linear") return name != "lm_head";
  if (pattern.find_first_of("*+?[](){}|^$\\") == std::string::npos)
    return name == pattern || (name.size() > pattern.size() && name.ends_with("." + pattern));
  try {
    return std::regex_match(name, std::regex(pattern));
  } catch (const std::regex_error& error) {
    fail<ConfigError>("lora.targets: '{}' is not a valid regular expression ({})", pattern,
                      error.what());
  }
}

// The distinct last components: what a user can name.
std::string known_names(const std::vector<std::string>& names) {
  std::set<std::string> last;
  for (const std::string& name : names) last.insert(name.substr(name.rfind('.') + 1));
  return fmt::format("{}", fmt::join(last, ", "));
}

}  // namespace

bool is_target(const std::vector<std::string>& patterns, const std::string& name) {
  return std::ranges::any_of(patterns,
                             [&](const std::string& pattern) { return matches(pattern, name); });
}

Targets match_targets(const std::vector<std::string>& patterns,
                      const std::vector<std::string>& names) {
  if (patterns.empty())
    throw ConfigError("lora.targets must name at least one pattern, e.g. all-linear");
  Targets targets;
  targets.chosen.assign(names.size(), false);
  for (const std::string& pattern : patterns) {
    TargetMatch match{pattern, {}};
    for (size_t i = 0; i < names.size(); ++i) {
      if (!matches(pattern, names[i])) continue;
      if (names[i] == "lm_head")
        fail<ConfigError>(
            "lora.targets: '{}' matches the output embedding lm_head, which takes no adapter in "
            "this version; name the other modules",
            pattern);
      match.indices.push_back(i);
      targets.chosen[i] = true;
    }
    if (match.indices.empty())
      fail<ConfigError>("lora.targets: '{}' matches no module; the model has {}", pattern,
                        known_names(names));
    targets.matches.push_back(match);
  }
  return targets;
}

}  // namespace qlora::lora
