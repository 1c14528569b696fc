// What training on pairs of answers needs besides: the objective, and for DPO the log-probabilities
// of every pair by the reference, which is the model before the run's first step: the base, with
// lora.from_adapter the base with that adapter, and with an initialization that moves a part of the
// weights into the adapter (LoftQ, PiSSA, OLoRA) both together. They are computed once and lie in
// the run's directory, RUN/reference.json, from which a resumed run takes them.
#pragma once

#include <memory>
#include <vector>

#include "data/prepare.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"
#include "recipes/run_files/run_directory.h"
#include "trainer/objective.h"

namespace qlora::recipes {

trainer::PreferenceOptions preference_options(const Recipe& recipe);

// By example of PreparedData; empty where the objective has no reference.
struct Reference {
  std::vector<double> train, eval;
};

// To be called while the model's adapters are those before the first step. A run that goes on reads
// what it has written; where that is missing or of other rows, it is computed as when the run
// began. ConfigError if that cannot be: the adapters' start is not known any more. Left by Stopped
// if a stop is wanted.
// The ranks share the work.
Reference reference_of(const Recipe& recipe, const RunDirectory& run, const BaseModel& base,
                       const data::PreparedData& data, distributed::Group& group);

// Writes RUN/reference.json, if there is a reference.
void save_reference(const RunDirectory& run, const data::PreparedData& data,
                    const Reference& reference);

std::unique_ptr<trainer::Objective> objective_of(const Recipe& recipe, const Reference& reference);

}  // namespace qlora::recipes
