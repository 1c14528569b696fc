// A run that makes room for another one in its directory.
#pragma once

#include <functional>
#include <string>

#include "recipes/recipe.h"

namespace qlora::recipes {

// For what has a partial name: nothing takes it for a run's, and it is in nobody's way if it stays,
// of which a warning tells.
void remove_partial_name(const std::function<void()>& remove);

// ConfigError naming the key and the file if the recipe reads what replace_run() would take away,
// also by a pattern or by links in a directory: the new run must not lose what it is to read.
void require_inputs_stay(const Recipe& recipe, const std::string& run_dir);

// ConfigError if a part of the run cannot be renamed: a mount point, or another user's in a place
// where each may change only his own.
void require_parts_can_go(const std::string& run_dir);

// Removes what the run in the directory has written, all but the log, which the new run is already
// writing, says what that was ("200 steps, 4 checkpoints (the last: checkpoint-000200), adapter"),
// and puts the new run's recipe in its place. A kill on the way leaves the old run whole, or
// recipe.replacing.yaml, with which it counts no more. IoError; where something cannot be renamed
// (a mount point), the old run is left as it was.
void replace_run(const std::string& run_dir, const std::string& recipe_text);

}  // namespace qlora::recipes
