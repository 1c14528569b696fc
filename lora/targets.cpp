#include "lora/targets.h"

#include <algorithm>
#include <optional>
#include <regex>
#include <set>
#include <utility>

#include <fmt/ranges.h>

#include "base/compiled_pattern.h"
#include "base/error.h"
#include "base/idle_pattern.h"
#include "base/nearest_word.h"
#include "lora/expert_names.h"
#include "lora/module_path.h"
#include "lora/whole_modules.h"

namespace qlora::lora {
namespace {

constexpr const char* kExclude = "lora.exclude_modules";

bool ends_path(const std::string& path, const std::string& end) {
  return path == end || (path.size() > end.size() && path.ends_with("." + end));
}

// `key`: of the pattern, for errors.
bool matches(const char* key, const std::string& pattern, const std::string& name) {
  if (is_parameter(name)) return false;
  if (pattern == "all-linear") return name != "lm_head";
  if (pattern.find_first_of("*+?[](){}|^$\\") == std::string::npos) return ends_path(name, pattern);
  try {
    return std::regex_match(name, compiled_pattern(pattern));
  } catch (const std::regex_error& error) {
    fail<ConfigError>("{}: '{}' is not a valid regular expression ({})", key, pattern,
                      pattern_fault(pattern, error));
  }
}

// The index of a module's decoder layer is the first number among the components of its path.
std::optional<int64_t> layer_of(const std::string& module) {
  static const std::regex numbered("\\.([0-9]{1,9})\\.");
  std::smatch found;
  if (!std::regex_search(module, found, numbered)) return std::nullopt;
  return std::stoll(found[1]);
}

bool in_chosen_layer(const LoraOptions& options, const std::string& module) {
  if (options.layers_to_transform.empty()) return true;
  const std::optional<int64_t> layer = layer_of(module);
  return layer && std::ranges::find(options.layers_to_transform, *layer) !=
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

// Nothing if there is a match for each pattern; `unmatched` are those without one, `known` what
// they could have named.
void require_matches(const char* key, const std::vector<std::string>& unmatched, const char* what,
                     const std::vector<std::string>& known) {
  if (unmatched.empty()) return;
  const std::string model_has =
      "model has " + (known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", ")));
  if (unmatched.size() == 1) {
    const std::string near = nearest_word(unmatched[0], known);
    fail<ConfigError>("{}: '{}' matches no {}; {} {}", key, unmatched[0], what,
                      near.empty() ? "the" : fmt::format("did you mean '{}'? The", near),
                      model_has);
  }
  std::vector<std::string> all;
  for (const std::string& pattern : unmatched) {
    const std::string near = nearest_word(pattern, known);
    all.push_back(near.empty() ? fmt::format("'{}'", pattern)
                               : fmt::format("'{}' (did you mean '{}'?)", pattern, near));
  }
  fail<ConfigError>("{}: {} match no {}; the {}", key, fmt::join(all, ", "), what, model_has);
}

// The keys of rank_pattern or alpha_pattern.
template <typename Value>
void check_sizes(const char* key, const OrderedMap<Value>& patterns,
                 const std::vector<std::string>& names) {
  std::vector<std::string> unmatched;
  for (const auto& [pattern, value] : patterns)
    if (std::ranges::none_of(names, [&](const std::string& name) {
          return sizes_pattern_matches(key, pattern, name);
        }))
      unmatched.push_back(pattern);
  std::vector<std::string> known = known_names(names, false);
  for (const std::string& parameter : known_names(names, true)) known.push_back(parameter);
  require_matches(key, unmatched, "module", known);
}

// The keys of rank_pattern or alpha_pattern that match modules, all of which have an earlier one.
template <typename Value>
std::vector<std::string> idle_sizes(const char* key, const OrderedMap<Value>& patterns,
                                    const std::vector<std::string>& names) {
  std::vector<std::string> sentences;
  const auto matches_it = [key](const std::string& pattern, const std::string& name) {
    return sizes_pattern_matches(key, pattern, name);
  };
  for (const IdlePattern& idle : find_idle_patterns(patterns, names, matches_it))
    if (idle.matches) sentences.push_back(idle_pattern_sentence(key, idle.pattern, "modules"));
  return sentences;
}

// Adds what matched(name) says to the targets, as `pattern`, which else is one of `unmatched`.
template <typename Matched>
void add_match(const LoraOptions& options, const std::vector<std::string>& names,
               const std::string& pattern, const Matched& matched, Targets& targets,
               std::vector<std::string>& unmatched) {
  TargetMatch match{pattern, {}};
  bool any = false;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!matched(names[i])) continue;
    any = true;
    if (!is_target(options, names[i])) continue;
    match.indices.push_back(i);
    targets.chosen[i] = true;
  }
  if (!any) unmatched.push_back(pattern);
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
  const auto chosen_by = [&](const char* key, const std::vector<std::string>& patterns) {
    return std::ranges::any_of(
        patterns, [&](const std::string& pattern) { return matches(key, pattern, module); });
  };
  const bool chosen = is_parameter(module) ? is_target_parameter(options, module)
                                           : chosen_by("lora.targets", options.targets);
  return chosen && !chosen_by(kExclude, options.exclude_modules) &&
         in_chosen_layer(options, module) && !is_trained_whole(options, module);
}

Targets match_targets(const LoraOptions& options, const std::vector<std::string>& names) {
  if (options.targets.empty() && options.target_parameters.empty())
    throw ConfigError("lora.targets must name at least one pattern, e.g. all-linear");
  Targets targets;
  targets.chosen.assign(names.size(), false);
  std::vector<std::string> unmatched;
  for (const std::string& pattern : options.targets)
    add_match(
        options, names, pattern,
        [&](const std::string& name) { return matches("lora.targets", pattern, name); }, targets,
        unmatched);
  require_matches("lora.targets", unmatched, "module", known_names(names, false));
  for (const std::string& path : options.target_parameters)
    add_match(
        options, names, path,
        [&](const std::string& name) {
          return is_parameter(name) && ends_path(parameter_path(name), path);
        },
        targets, unmatched);
  require_matches("lora.target_parameters", unmatched, "expert or router",
                  known_names(names, true));
  if (std::ranges::find(targets.chosen, true) != targets.chosen.end()) return targets;
  check_layers(options, names);
  throw ConfigError(
      "lora.targets: lora.exclude_modules, lora.layers_to_transform and lora.modules_to_save leave "
      "no module to adapt");
}

void check_exclusions(const LoraOptions& options, const std::vector<std::string>& names) {
  std::vector<std::string> unmatched;
  for (const std::string& pattern : options.exclude_modules)
    if (std::ranges::none_of(
            names, [&](const std::string& name) { return matches(kExclude, pattern, name); }))
      unmatched.push_back(pattern);
  require_matches(kExclude, unmatched, "module", known_names(names, false));
}

void check_layers(const LoraOptions& options, const std::vector<std::string>& names) {
  int64_t layers = 0;
  for (const std::string& name : names) layers = std::max(layers, layer_of(name).value_or(-1) + 1);
  std::vector<int64_t> beyond;
  for (const int64_t layer : options.layers_to_transform)
    if (layer >= layers) beyond.push_back(layer);
  if (!beyond.empty())
    fail<ConfigError>("lora.layers_to_transform: the model has the layers 0 to {}, got {}",
                      layers - 1, fmt::join(beyond, ", "));
}

void check_rank_pattern(const LoraOptions& options, const std::vector<std::string>& names) {
  check_sizes("lora.rank_pattern", options.rank_pattern, names);
}

void check_alpha_pattern(const LoraOptions& options, const std::vector<std::string>& names) {
  check_sizes("lora.alpha_pattern", options.alpha_pattern, names);
}

std::vector<std::string> idle_patterns(const LoraOptions& options,
                                       const std::vector<std::string>& names) {
  std::vector<std::string> sentences = idle_sizes("lora.rank_pattern", options.rank_pattern, names);
  for (std::string& sentence : idle_sizes("lora.alpha_pattern", options.alpha_pattern, names))
    sentences.push_back(std::move(sentence));
  return sentences;
}

}  // namespace qlora::lora
