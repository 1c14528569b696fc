// A run that has nothing left to train.
#pragma once

#include "recipes/recipe.h"
#include "recipes/run_directory.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// Whether the run was trained to its end, evaluated and its adapter written: by the checkpoint that
// `state` was read from, and with the length that `recipe` asks for now. False where only model and
// data could tell.
bool is_finished(const Recipe& recipe, const RunDirectory& run, const trainer::TrainState& state);

// Says that it was finished before, and how to train longer or anew.
void tell_finished(const RunDirectory& run, const trainer::TrainState& state);

}  // namespace qlora::recipes
