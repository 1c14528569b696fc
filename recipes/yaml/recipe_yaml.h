// Recipes as YAML: strict reading, --set, and writing back.
#pragma once

#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace qlora::recipes {

// Reads and checks the recipe in `path`. `overrides` are the arguments of --set: "optim.lr=1e-4",
// "data.train[0].path=rows.jsonl", each value in YAML; one takes the place of a key of the file
// that excludes it (Recipe::left_out). Relative paths are taken relative to the recipe and made
// absolute. ConfigError with one line a problem, each with file:line:column where it has one, and
// with what is wrong with the files that it names (recipes/before_loading.h); no weights are read
// before. IoError if the file cannot be read.
Recipe read_recipe(const std::string& path, const std::vector<std::string>& overrides = {});

// The same from text; `directory` is what relative paths are relative to.
Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::string& directory, const std::vector<std::string>& overrides = {});

// Tells which keys of the file do not count, since an override excludes them.
void tell_left_out(const Recipe& recipe);

// Every key with its value; parse_recipe gives the same recipe back.
std::string write_recipe(const Recipe& recipe);

// How two recipes differ in keys that a run may not change once it has begun: "optim.lr: 0.0002 ->
// 0.0001". Empty: the second may resume the first.
std::vector<std::string> fixed_differences(const Recipe& before, const Recipe& now);
// In keys that may change, with what the change does.
std::vector<std::string> free_differences(const Recipe& before, const Recipe& now);

}  // namespace qlora::recipes
