// What a recipe leaves to the files that it names: the options of an adapter to go on from, the ids
// of tokens that it spells out.
#pragma once

#include "recipes/recipe.h"

namespace qlora::recipes {

// With lora.from_adapter, rank, alpha, targets and what else makes up an adapter are those of that
// adapter, and dropout where the recipe does not say it; where it is gone, those that the run in
// output.dir began with. ConfigError if the recipe asks for others (given_adapter.h).
void adopt_adapter_options(Recipe& recipe);

// Turns lora.trainable_tokens into lora.trainable_token_indices. ConfigError if the model's
// tokenizer has no such token.
void name_trained_tokens(Recipe& recipe);

// What lora.targets mean in the model (model/expert_targets.h).
void name_expert_targets(Recipe& recipe);

}  // namespace qlora::recipes
