// What model.device_map: auto means: as many blocks on the device as a run has room for.
#pragma once

#include <cstdint>
#include <optional>

#include "model/placement.h"
#include "trainer/memory_plan.h"

namespace qlora::trainer {

struct MemoryLimits {
  int64_t device = 0;           // of the run's planned peak
  std::optional<int64_t> host;  // of weights in a GPU's host's memory; none: on a CPU
};

struct PlacementFit {
  model::Placement placement;
  bool fits = false;  // false: even with all blocks elsewhere the run takes more
  int64_t peak = 0;   // planned
};

// The last layers stay on the device, which the turn from the forward to the backward pass comes to
// twice in a row, as many as `limits.device` has room for; the others lie in the host's memory as
// far as `limits.host` goes, and on disk. run.placement does not matter.
PlacementFit fit_placement(PlannedRun run, const MemoryLimits& limits);

}  // namespace qlora::trainer
