// A fine-tuning run from a recipe to an adapter: the story of the program.
#pragma once

#include <atomic>

#include "recipes/recipe.h"
#include "trainer/train_loop.h"

namespace qlora::recipes {

// Trains, or goes on where the run stopped; writes checkpoints, metrics and at the end the adapter
// to output.dir. When `stop` becomes true the run saves what it was at the begin of the step or
// evaluation under way and returns kInterrupted; while base and rows are still being read there is
// nothing to save, and it leaves by Stopped. Throws ConfigError, FormatError, IoError, and
// DivergenceError after which the last checkpoint is still good.
trainer::Outcome finetune(Recipe recipe, const std::atomic<bool>& stop);

}  // namespace qlora::recipes
