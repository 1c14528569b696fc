// The base as it was before an initialisation (LoftQ, PiSSA, OLoRA) moved a part of its weights
// into the adapter: what such a trained model is to be compared with. Its own base without the
// adapter is no model that anybody has had.
#pragma once

#include <string>

#include "recipes/models/trained_model.h"

namespace qlora::recipes {

// How to load it (load_base): the model that the run, or --model, names, quantized as theirs, with
// no initialisation. ConfigError that names --compare-base if only the changed base is known, or
// the original is gone.
Recipe recipe_of_original_base(const ModelChoice& choice, const TrainedModel& trained);

// What to say where the base answers without the adapter: that it is not the original model, and by
// which path that one answers, if it is there. Empty where no weights were moved.
std::string changed_base_sentence(const ModelChoice& choice, const TrainedModel& trained);

}  // namespace qlora::recipes
