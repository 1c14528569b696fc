// A run that makes room for another one in its directory.
#pragma once

#include <functional>
#include <string>

#include "recipes/recipe.h"

namespace qlora::recipes {

// For what has a partial name: nothing takes it for a run's, and it is in nobody's way if it stays,
// of which a warning tells.
void remove_partial_name(const std::function<void()>& remove);

// ConfigError naming the key if the recipe reads what remove_run() would take away: the new run
// must not lose what it is to read.
void require_inputs_stay(const Recipe& recipe, const std::string& run_dir);

// Says what the run has that will be removed: "200 steps, 4 checkpoints (the last:
// checkpoint-000200), adapter".
void tell_what_goes(const std::string& run_dir);

// All but the log, which the new run is already writing, and the recipes. Each is renamed before
// any is removed: what cannot be removed, or a kill, leaves nothing half removed that looks whole.
// IoError.
void remove_run(const std::string& run_dir);

}  // namespace qlora::recipes
