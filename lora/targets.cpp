#include "lora/targets.h"

#include <algorithm>
#include <regex>
#include <set>

#include <fmt/ranges.h>

#include "base/error.h"
#include "lora/whole_modules.h"

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

// The index of a module's decoder layer is the first number among the components of its path.
bool in_chosen_layer(const LoraOptions& options, const std::string& module) {
  if (options.layers_to_transform.empty()) return true;
  static const std::regex numbered("\\.([0-9]{1,9})\\.");
  std::smatch found;
  return std::regex_search(module, found, numbered) &&
         std::ranges::find(options.layers_to_transform, std::stoll(found[1])) !=
             options.layers_to_transform.end();
}

// The distinct last components: what a user can name.
std::string known_names(const std::vector<std::string>& names) {
  std::set<std::string> last;
  for (const std::string& name : names) last.insert(name.substr(name.rfind('.') + 1));
  return fmt::format("{}", fmt::join(last, ", "));
}

}  // namespace

bool is_target(const LoraOptions& options, const std::string& module) {
  const auto chosen_by = [&](const std::vector<std::string>& patterns) {
    return std::ranges::any_of(
        patterns, [&](const std::string& pattern) { return matches(pattern, module); });
  };
  return chosen_by(options.targets) && !chosen_by(options.exclude_modules) &&
         in_chosen_layer(options, module) && !is_trained_whole(options, module);
}

Targets match_targets(const LoraOptions& options, const std::vector<std::string>& names) {
  const std::vector<std::string>& patterns = options.targets;
  if (patterns.empty())
    throw ConfigError("lora.targets must name at least one pattern, e.g. all-linear");
  Targets targets;
  targets.chosen.assign(names.size(), false);
  for (const std::string& pattern : patterns) {
    TargetMatch match{pattern, {}};
    bool matched = false;
    for (size_t i = 0; i < names.size(); ++i) {
      if (!matches(pattern, names[i])) continue;
      matched = true;
      if (!is_target(options, names[i])) continue;
      match.indices.push_back(i);
      targets.chosen[i] = true;
    }
    if (!matched)
      fail<ConfigError>("lora.targets: '{}' matches no module; the model has {}", pattern,
                        known_names(names));
    targets.matches.push_back(match);
  }
  if (std::ranges::find(targets.chosen, true) == targets.chosen.end())
    throw ConfigError(
        "lora.targets: lora.exclude_modules, lora.layers_to_transform and lora.modules_to_save "
        "leave "
        "no module to adapt");
  return targets;
}

}  // namespace qlora::lora
