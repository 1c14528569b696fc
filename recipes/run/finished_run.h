// The end of a run: what it leaves, and what its owner is told.
#pragma once

#include "recipes/models/base_model.h"
#include "recipes/recipe.h"
#include "recipes/run_files/run_directory.h"
#include "trainer/train_loop.h"

namespace qlora::recipes {

// RUN/adapter of a run whose job is done, and what to do next; of one that was interrupted, how to
// go on.
void finish(const Recipe& recipe, const RunDirectory& run, const BaseModel& base,
            const trainer::TrainJob& job);

// Of a run that has nothing left to train: that it was finished before, and how to train longer or
// anew. Names the checkpoints that are damaged.
void tell_finished(const Recipe& recipe, const RunDirectory& run);

}  // namespace qlora::recipes
