// The weights that an adapter is merged into: those of the quantized base, or the 16-bit ones it
// was quantized from.
#pragma once

#include <memory>
#include <string>

#include "model/weight_source.h"
#include "recipes/models/trained_model.h"

namespace qlora::recipes {

// ConfigError unless `name` is dequantized, original or auto.
void check_merge_base(const std::string& name);

// The 16-bit weights of the base: `given` (a directory, a .gguf file or a hub id), or if that is
// empty the first of the model's sources that holds them. ConfigError if there are none, if they
// are of another shape or model than the base, or if the adapter holds a part of a base that an
// initialisation changed (LoftQ, PiSSA, OLoRA).
std::unique_ptr<model::WeightSource> open_original(const TrainedModel& trained,
                                                   const std::string& given);

}  // namespace qlora::recipes
