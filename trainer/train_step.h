// One optimizer step in its parts.
#pragma once

#include "data/loader.h"
#include "trainer/train_loop.h"

namespace qlora::trainer {

// Loss and accumulated adapter gradients of a whole window, as the job's objective has them, whose
// divisors are the window's, whatever the micro-batches: 8 x 1 equals 1 x 8.
// Throws Stopped between two micro-batches if a stop is wanted; of the step nothing but gradients
// is left then, which the next call clears.
double accumulate_gradients(TrainJob& job, const data::StepWindow& window);

}  // namespace qlora::trainer
