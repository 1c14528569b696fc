// What of a machine's free memory a rank of a run may take.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace qlora::recipes {

// What is free on the device for one of the `ranks_here` ranks that run on this machine, in bytes:
// of the CPU's memory its part, or less where its own limit comes first, of a GPU its part if there
// are fewer GPUs than ranks, so that some share one.
int64_t free_memory_of_rank(c10::Device device, int ranks_here);

}  // namespace qlora::recipes
