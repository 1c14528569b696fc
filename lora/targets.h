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

// The modules that is_target() chooses. ConfigError if a pattern matches no module (the message
// lists the module names there are) or is no valid regex.
Targets match_targets(const LoraOptions& options, const std::vector<std::string>& names);

}  // namespace qlora::lora
