// Weights that stay packed as the model's files have them, and what cannot be done with those: told
// by the files' header.
#pragma once

#include "model/model_header.h"
#include "model/placement.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// A run writes its base (output.save_base, lora.init) in bitsandbytes' layout, which has no place
// for what GGUF files and other tools pack. ConfigError that begins with `key`, for which the base
// would be written.
void require_writable_base(const Recipe& recipe, const model::ModelHeader& header,
                           const std::string& key);

// A head that is packed is decoded as a whole, and stays on the device. ConfigError.
void require_movable_head(const Recipe& recipe, const model::ModelHeader& header,
                          const model::Placement& placement);

}  // namespace qlora::recipes
