// The rows of a run and the steps that they make.
#pragma once

#include <cstdint>

#include "data/loader.h"
#include "data/prepare.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// Prepared and reported on the terminal. Before the weights are read, so that a row that is wrong
// is told first.
data::PreparedData read_data(const Recipe& recipe, const ModelText& text);
// Tells what the datasets' weights make of an epoch.
data::Loader make_loader(const Recipe& recipe, const data::PreparedData& data);

// Steps of the whole run.
int64_t total_steps(const Recipe& recipe, const data::Loader& loader);
// Tokens of the fullest sequence there can be.
int64_t longest_sequence(const Recipe& recipe, const data::Loader& loader);

}  // namespace qlora::recipes
