// What a recipe leaves to the files that it names: the options of an adapter to go on from, the ids
// of tokens that it spells out.
#pragma once

#include "recipes/recipe.h"

namespace qlora::recipes {

// With lora.from_adapter, rank, alpha, targets and what else makes up an adapter are those of that
// adapter, and dropout where the recipe does not say it; where it is gone, those that the run in
// output.dir began with. ConfigError if the recipe asks for others (given_adapter.h).
void adopt_adapter_options(Recipe& recipe);

// What adopt_adapter_options() does of texts: without data.chat_template (left out; an empty one
// means the model's) the chat template that the adapter was trained with, as its text, unless it is
// the model's, or prompts are trained in Alpaca's own words. Of a run that has begun: the one that
// its recipe has.
void adopt_chat_template(Recipe& recipe);

// Turns lora.trainable_tokens into lora.trainable_token_indices. ConfigError if the model's
// tokenizer has no such token.
void name_trained_tokens(Recipe& recipe);

// What lora.targets mean in the model (model/expert_targets.h).
void name_expert_targets(Recipe& recipe);

}  // namespace qlora::recipes
