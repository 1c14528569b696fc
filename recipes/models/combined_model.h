// Several adapters on one base, combined into one with weights (lora/combine_adapters.h).
#pragma once

#include <string>
#include <vector>

#include "lora/combine_adapters.h"
#include "recipes/models/trained_model.h"

namespace qlora::recipes {

// `choice` names the base; its `adapter` is the first of `adapters`, whose record says how the base
// is quantized. ConfigError if one belongs to another base, or holds a part of this one's weights
// (LoftQ, PiSSA, OLoRA), which weights would scale; errors of read_plain_adapter and
// combine_adapters.
TrainedModel open_combined_model(const ModelChoice& choice,
                                 const std::vector<std::string>& adapters,
                                 const lora::CombineOptions& options);

}  // namespace qlora::recipes
