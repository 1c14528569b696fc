// The base as it was before an initialisation (LoftQ, PiSSA, OLoRA) moved a part of its weights
// into the adapter: what such a trained model is to be compared with. Its own base without the
// adapter is no model that anybody has had.
#pragma once

#include "recipes/models/trained_model.h"

namespace qlora::recipes {

// How to load it (load_base): the model that the run, or --model, names, quantized as theirs, with
// no initialisation. ConfigError that names --compare-base if only the changed base is known, or
// the original is gone.
Recipe recipe_of_original_base(const ModelChoice& choice, const TrainedModel& trained);

}  // namespace qlora::recipes
