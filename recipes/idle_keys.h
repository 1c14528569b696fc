// Keys that a recipe writes and that nothing obeys, given what else it says.
#pragma once

#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace qlora::recipes {

// A sentence for each key that stands in the recipe (Recipe::places) with another value than its
// default, and changes nothing: "optim.power changes nothing: it is of optim.schedule polynomial,
// found cosine". The record that a run keeps of its recipe writes out what was left out as well.
// `is_stored_quantized`: another tool has quantized the base's files.
std::vector<std::string> idle_keys(const Recipe& recipe, bool is_stored_quantized = false);

}  // namespace qlora::recipes
