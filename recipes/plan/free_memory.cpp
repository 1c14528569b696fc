#include "recipes/plan/free_memory.h"

#include <algorithm>

#include "base/cgroup.h"
#include "base/device.h"

namespace qlora::recipes {

int64_t free_memory_of_rank(c10::Device device, int ranks_here) {
  if (device.is_cpu()) return usable_memory_bytes("/", ranks_here);
  const int gpus = std::max(num_gpus(), 1);
  return free_memory_bytes(device) / ((ranks_here + gpus - 1) / gpus);
}

}  // namespace qlora::recipes
