// What the files of a run are called, and that nobody else writes to these names.
#pragma once

#include <string>

namespace qlora::recipes {

constexpr const char* kRecipeFile = "recipe.resolved.yaml";
// The recipe of a run that is about to take the place of the one in its directory. While it is
// there that one counts no more, whatever is left of it: a start removes the rest and begins anew.
constexpr const char* kReplacingRecipe = "recipe.replacing.yaml";
// What a reference model says of the rows (run/preferences.h).
constexpr const char* kReferenceFile = "reference.json";

// Whether a run writes RUN/<name> and --overwrite removes it. The log, which starts share, is none
// of these.
bool belongs_to_a_run(const std::string& name);

// Whether the directory holds a run, also one that is being replaced.
bool is_run(const std::string& path);

// Whether the run in the directory has written the adapter of its end. A directory of that name
// without the adapter's tensors, emptied or copied in part, is none.
bool has_adapter(const std::string& run_dir);

// Whether the run in the directory is being replaced, or was when that was cut short.
bool is_being_replaced(const std::string& run_dir);

// ConfigError if `path` is what a run calls a file or directory of its own, or lies within one: the
// run would take it for its own, or replace it. `option` begins the sentence: "--output".
void require_no_place_of_a_run(const std::string& option, const std::string& path);

}  // namespace qlora::recipes
