// What a run that was interrupted tells its owner.
#pragma once

#include <string>

#include "base/stop.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// Where the run was left, what is saved, and how to go on:
// "stopped in step 12 after micro-batch 3 of 16; the step is abandoned, the run is saved after step
// 11; go on with: qlora resume runs/mine"
std::string stop_sentence(const Stopped& stopped, const trainer::TrainState& state,
                          const std::string& run_dir);

}  // namespace qlora::recipes
