// model.device_map and model.max_memory of a recipe, resolved for a run on a machine.
#pragma once

#include "model/placement.h"
#include "recipes/recipe.h"
#include "trainer/memory_plan.h"

namespace qlora::recipes {

// `auto` fills the device up to model.max_memory, or up to what is free there for one of the
// `ranks_here` ranks on this machine, with a run that recomputes all layers where the recipe leaves
// that open. ConfigError of model::placement_of(); of
// auto where a limit of the recipe is too low in any case, or none is given for a GPU that is not
// here.
model::Placement placement_of(const Recipe& recipe, const trainer::PlannedRun& run,
                              int ranks_here = 1);

// That of model/placement.h for a run that is planned: the device need not be here.
void require_own_devices(const Recipe& recipe, bool on_gpu, int ranks_here);

// Of the `free_bytes` on the device, once base and data are loaded, what a run within
// model.max_memory may take (trainer::choose_recomputation()).
int64_t free_within_limit(const Recipe& recipe, const trainer::PlannedRun& run, int64_t free_bytes);

}  // namespace qlora::recipes
