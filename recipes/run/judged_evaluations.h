// Early stopping of a run that goes on: train.early_stopping_min_delta may have changed, and what
// counts as a gain with it.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/train_state.h"

namespace qlora::recipes {

// How many of the last evaluations up to state.step, in a row, gained no more than `min_delta`, by
// the text of the run's metrics.jsonl. Where it lacks evaluations, so that its best is not the
// state's, what the state says.
int64_t stale_evaluations(const std::string& metrics, double min_delta,
                          const trainer::TrainState& state);

}  // namespace qlora::recipes
