// Whether layers are recomputed in the backward pass (gradient checkpointing): what
// train.gradient_checkpointing: auto means.
#pragma once

#include <cstdint>
#include <string>

#include "model/model_config.h"

namespace qlora::trainer {

// Bytes that the backward pass keeps of one micro-batch without recomputation: per token and layer
// the fp32 residuals of two norms, the normed inputs, q, k, v, attention's output, gate, up and
// their product.
int64_t activation_bytes(const model::ModelConfig& config, int64_t tokens,
                         int64_t bytes_an_element);

// "true", "false", or "auto": yes if the activations would take more than half of what is free.
bool choose_recomputation(const std::string& option, int64_t activation_bytes, int64_t free_bytes);

}  // namespace qlora::trainer
