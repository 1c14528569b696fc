// One optimizer step in its parts.
#pragma once

#include <optional>

#include "data/loader.h"
#include "trainer/train_loop.h"

namespace qlora::trainer {

struct WindowLoss {
  double value = 0;
  std::optional<PreferenceMetrics> preference = {};  // of pairs of answers
};

// Loss and accumulated adapter gradients of a whole window, as the job's objective has them, whose
// divisors are the window's, whatever the micro-batches: 8 x 1 equals 1 x 8. Of the ranks of the
// job's group each computes a block of `micro_batches_a_rank`, and all get the sum.
// Throws, on all ranks, Stopped between two micro-batches if one of them wants to stop, and
// DivergenceError if a loss is not finite; of the step nothing but gradients is left then, which
// the next call clears.
WindowLoss accumulate_gradients(TrainJob& job, const data::StepWindow& window);

}  // namespace qlora::trainer
