// What a run trains: adapters on its base, and what lies beside them.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "data/prepare.h"
#include "lora/attach.h"
#include "lora/whole_modules.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// New adapters, or those of lora.from_adapter; prints what was matched. ConfigError if those belong
// to another base.
lora::AdapterSet attach_adapters(const Recipe& recipe, const BaseModel& base);

// Warns of trained tokens that no training row holds.
void look_for_trained_tokens(const lora::AdapterSet& adapters, const data::PreparedData& data);
// What it says of the tokens that no row holds; empty if there are none. Where lm_head has rows of
// its own, these move all the same: they are answers that are never right.
std::string unseen_tokens_sentence(const lora::TrainedEmbeddings& trained,
                                   const std::set<int64_t>& unseen);

}  // namespace qlora::recipes
