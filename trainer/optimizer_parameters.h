// What an optimizer trains of an AdapterSet.
#pragma once

#include <vector>

#include "lora/attach.h"
#include "lora/lora_options.h"
#include "optim/optimizer.h"

namespace qlora::trainer {

// The trained tensors in the order of adapters.tensors(), sharing their memory: B with the learning
// rate of LoRA+ (plus_lr_ratio), each with the weight decay of its name. Warns of patterns of decay
// that match none or decide nothing.
std::vector<optim::Parameter> optimizer_parameters(const lora::AdapterSet& adapters,
                                                   const lora::LoraOptions& lora,
                                                   const optim::OptimizerOptions& optim);

}  // namespace qlora::trainer
