// What a recipe says of the adapter that it goes on from. An adapter keeps its form (rank, alpha,
// targets and what else is trained): a key that asks for another one is refused.
#pragma once

#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace qlora::recipes {

// Whether lora.from_adapter names a directory that holds an adapter.
bool has_given_adapter(const Recipe& recipe);

// ConfigError if a key of the lora section that stands in the recipe (Recipe::places) has another
// value than the adapter, naming each with both. `adapter` are the options of the adapter on the
// model of `model_path`; what is spelled otherwise and comes to the same there is no difference. An
// init of the recipe must be "default" or that of the adapter.
void require_form_of_adapter(const Recipe& recipe, const lora::LoraOptions& adapter,
                             const std::string& model_path);

// How the adapter in a checkpoint, of these options, differs from what the run of `recipe` trains
// on the model of `model_path`: "lora.alpha: 64 -> 8", the adapter's first. What is spelled
// otherwise and comes to the same is no difference.
std::vector<std::string> differences_of_form(const Recipe& recipe, const lora::LoraOptions& adapter,
                                             const std::string& model_path);

}  // namespace qlora::recipes
