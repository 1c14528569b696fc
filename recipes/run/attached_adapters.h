// What a run trains: adapters on its base, and what lies beside them.
#pragma once

#include "data/prepare.h"
#include "lora/attach.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// New adapters, or those of lora.from_adapter; prints what was matched. ConfigError if those belong
// to another base.
lora::AdapterSet attach_adapters(const Recipe& recipe, const BaseModel& base);

// Warns of trained tokens that no training row holds.
void look_for_trained_tokens(const lora::AdapterSet& adapters, const data::PreparedData& data);

}  // namespace qlora::recipes
