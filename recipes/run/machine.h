// The machine as a run uses it.
#pragma once

#include <c10/core/Device.h>

#include "recipes/recipe.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// Applies the thread count and says what is computed on; gives the device.
c10::Device set_up_machine(const Recipe& recipe, const trainer::TrainState& state);

}  // namespace qlora::recipes
