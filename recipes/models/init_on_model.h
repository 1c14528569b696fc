// Whether lora.init finds on a model what it starts from, told from its header.
#pragma once

#include "model/model_header.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// For an init that changes the base: ConfigError if lora.targets has the head alone, whose adapter
// starts as by default whatever lora.init says; a warning if it has the head beside others.
void require_targets_of_init(const Recipe& recipe, const model::ModelHeader& header);

// ConfigError if loftq finds no weight that is quantized, with what that lost to begin from, or if
// a target is stored packed and the init needs weights of 16 bits.
void require_weights_of_init(const Recipe& recipe, const model::ModelHeader& header);

}  // namespace qlora::recipes
