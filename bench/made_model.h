// Models without files: weights of a given shape, made up tensor by tensor, to be loaded and
// quantized as real ones are.
#pragma once

#include <memory>
#include <string>

#include "model/weight_source.h"

namespace qlora::bench {

// "135m" (SmolLM2), "360m", "1.7b", "3b" (Llama 3.2), "8b" (Llama 3.1). ConfigError otherwise.
model::ModelConfig shape_named(const std::string& name);

std::unique_ptr<model::WeightSource> made_weights(const model::ModelConfig& config);

}  // namespace qlora::bench
