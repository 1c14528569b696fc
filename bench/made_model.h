// Shapes of known models, for weights that are made up (model/made_weights.h).
#pragma once

#include <string>

#include "model/architecture.h"

namespace qlora::bench {

// "135m" (SmolLM2), "360m", "0.6b" (Qwen 3), "1.7b" (SmolLM2), "3b" (Llama 3.2), "8b" (Llama 3.1),
// or the model of a config.json (a path that ends in .json). ConfigError otherwise.
model::Architecture shape_named(const std::string& name);

}  // namespace qlora::bench
