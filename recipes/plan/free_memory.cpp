#include "recipes/plan/free_memory.h"

#include <algorithm>

#include "base/device.h"

namespace qlora::recipes {

int64_t free_memory_of_rank(c10::Device device, int ranks_here) {
  const int gpus = std::max(num_gpus(), 1);
  const int sharing = device.is_cpu() ? ranks_here : (ranks_here + gpus - 1) / gpus;
  return free_memory_bytes(device) / sharing;
}

}  // namespace qlora::recipes
