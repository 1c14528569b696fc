// Keys that a recipe writes and that nothing obeys, given what else it says.
#pragma once

#include <string>
#include <vector>

#include "model/model_header.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// A sentence for each key that stands in the recipe (Recipe::places) with another value than its
// default, and changes nothing: "optim.power changes nothing: it is of optim.schedule polynomial,
// found cosine". The record that a run keeps of its recipe writes out what was left out as well.
std::vector<std::string> idle_keys(const Recipe& recipe);

// The same for keys that nothing obeys on this model: how weights are quantized that another tool
// has quantized, biases and tied embeddings that it does not have or that are not trained.
std::vector<std::string> idle_keys_on(const model::ModelHeader& header, const Recipe& recipe);

}  // namespace qlora::recipes
