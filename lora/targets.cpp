#include "lora/targets.h"

#include <algorithm>
#include <regex>
#include <set>

#include <fmt/ranges.h>

#include "base/compiled_pattern.h"
#include "base/error.h"
#include "base/nearest_word.h"
#include "lora/expert_names.h"
#include "lora/module_path.h"
#include "lora/whole_modules.h"

namespace qlora::lora {
namespace {

bool ends_path(const std::string& path, const std::string& end) {
  return path == end || (path.size() > end.size() && path.ends_with("." + end));
}

bool matches(const std::string& pattern, const std::string& name) {
  if (is_parameter(name)) return false;
  if (pattern == "all-linear") return name != "lm_head";
  if (pattern.find_first_of("*+?[](){}|^$\\") == std::string::npos) return ends_path(name, pattern);
  try {
    return std::regex_match(name, compiled_pattern(pattern));
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
std::vector<std::string> known_names(const std::vector<std::string>& names, bool parameters) {
  std::set<std::string> last;
  for (const std::string& name : names) {
    if (is_parameter(name) != parameters) continue;
    const auto expert = expert_name(name);
    const std::string own = last_name(name);
    last.insert(parameters && !expert ? own + ".weight" : own);
  }
  return {last.begin(), last.end()};
}

[[noreturn]] void fail_without_match(const char* key, const std::string& pattern,
                                     const std::vector<std::string>& names, bool parameters) {
  const std::vector<std::string> known = known_names(names, parameters);
  const std::string near = nearest_word(pattern, known);
  fail<ConfigError>("{}: '{}' matches no {}; {} model has {}", key, pattern,
                    parameters ? "expert or router" : "module",
                    near.empty() ? "the" : fmt::format("did you mean '{}'? The", near),
                    known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", ")));
}

// Adds what matched(name) says to the targets, as `pattern`.
template <typename Matched>
void add_match(const LoraOptions& options, const std::vector<std::string>& names,
               const std::string& pattern, const char* key, const Matched& matched,
               Targets& targets) {
  TargetMatch match{pattern, {}};
  bool any = false;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!matched(names[i])) continue;
    any = true;
    if (!is_target(options, names[i])) continue;
    match.indices.push_back(i);
    targets.chosen[i] = true;
  }
  if (!any) fail_without_match(key, pattern, names, key == std::string("lora.target_parameters"));
  targets.matches.push_back(match);
}

bool is_target_parameter(const LoraOptions& options, const std::string& module) {
  const std::string path = parameter_path(module);
  return std::ranges::any_of(options.target_parameters, [&](const std::string& parameter) {
    return ends_path(path, parameter);
  });
}

}  // namespace

bool is_target(const LoraOptions& options, const std::string& module) {
  const auto chosen_by = [&](const std::vector<std::string>& patterns) {
    return std::ranges::any_of(
        patterns, [&](const std::string& pattern) { return matches(pattern, module); });
  };
  const bool chosen =
      is_parameter(module) ? is_target_parameter(options, module) : chosen_by(options.targets);
  return chosen && !chosen_by(options.exclude_modules) && in_chosen_layer(options, module) &&
         !is_trained_whole(options, module);
}

Targets match_targets(const LoraOptions& options, const std::vector<std::string>& names) {
  if (options.targets.empty() && options.target_parameters.empty())
    throw ConfigError("lora.targets must name at least one pattern, e.g. all-linear");
  Targets targets;
  targets.chosen.assign(names.size(), false);
  for (const std::string& pattern : options.targets)
    add_match(
        options, names, pattern, "lora.targets",
        [&](const std::string& name) { return matches(pattern, name); }, targets);
  for (const std::string& path : options.target_parameters)
    add_match(
        options, names, path, "lora.target_parameters",
        [&](const std::string& name) {
          return is_parameter(name) && ends_path(parameter_path(name), path);
        },
        targets);
  if (std::ranges::find(targets.chosen, true) == targets.chosen.end())
    throw ConfigError(
        "lora.targets: lora.exclude_modules, lora.layers_to_transform and lora.modules_to_save "
        "leave "
        "no module to adapt");
  return targets;
}

}  // namespace qlora::lora
