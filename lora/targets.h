// Which linear layers get an adapter: "all-linear" (every linear layer but the output embedding),
// or names and patterns, matched as PEFT does: a name equals the module path or ends it after a
// dot; anything with regex characters is matched against the whole path. Experts and routers are
// chosen by target_parameters alone (expert_names.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lora/lora_options.h"

namespace qlora::lora {

struct TargetMatch {
  std::string pattern;
  std::vector<size_t> indices;  // of the modules it matched, into the names
  int64_t parameters = 0;       // of their adapters; set by attach

  int64_t modules() const { return static_cast<int64_t>(indices.size()); }
};

struct Targets {
  std::vector<bool> chosen;          // parallel to the module names
  std::vector<TargetMatch> matches;  // one a pattern
};

// Whether the module gets an adapter: chosen by targets or target_parameters, not by
// exclude_modules or modules_to_save, and in one of layers_to_transform.
bool is_target(const LoraOptions& options, const std::string& module);

// The modules that is_target() chooses. ConfigError if patterns match no module (the message has
// all of them, and the module names there are), one is no valid regex, or no module is left.
Targets match_targets(const LoraOptions& options, const std::vector<std::string>& names);

// ConfigError if entries of these options, which only narrow or change what targets choose, mean
// none of the modules: the message has all of them. An adapter's own may, as in PEFT: they are
// asked of recipes alone.
void check_exclusions(const LoraOptions& options, const std::vector<std::string>& names);
void check_layers(const LoraOptions& options, const std::vector<std::string>& names);
void check_rank_pattern(const LoraOptions& options, const std::vector<std::string>& names);
void check_alpha_pattern(const LoraOptions& options, const std::vector<std::string>& names);
// A sentence for each key of rank_pattern and alpha_pattern that decides nothing, since earlier
// ones take all of its modules.
std::vector<std::string> idle_patterns(const LoraOptions& options,
                                       const std::vector<std::string>& names);

}  // namespace qlora::lora
