// A run that has nothing left to train.
#pragma once

#include "recipes/run_directory.h"

namespace qlora::recipes {

// Says that it was finished before, and how to train longer or anew.
void tell_finished(const RunDirectory& run);

}  // namespace qlora::recipes
