// Which settings make a run fit into a given memory: what `qlora plan --fit` prints and what
// train.gradient_checkpointing: auto means.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/memory_plan.h"

namespace qlora::trainer {

struct MemoryFit {
  PlannedRun run;  // with the settings chosen
  int64_t gradient_accumulation_steps = 1;
  MemoryPlan plan;
  bool fits = false;  // false: these settings take least, and still too much
};

// The fastest settings whose peak stays within `limit` bytes. For each micro-batch (micro-batch
// times accumulation, of which the ranks have equal parts, stays the same), and on a GPU each with
// the optimizer's state paged out as far as possible, as few layers are recomputed as it fits with;
// of these the one whose step costs least:
//
//   accumulation · (tokens of the micro-batch + overhead) · (1 + 0.25 · share of layers recomputed)
//
// where the overhead is what a micro-batch costs whatever its length, in tokens: 16 on a CPU, which
// dequantizes, 256 on a GPU, which is not busy with fewer (assumed). Of equals the largest
// micro-batch is taken, and the optimizer as it is.
// Error if run.ranks does not divide the accumulation.
MemoryFit fit_memory(const PlannedRun& run, int64_t gradient_accumulation_steps, int64_t limit);

// Share of the free memory that a run may plan to take: other programs breathe too.
constexpr double kUsableShare = 0.9;

// What train.gradient_checkpointing true, false or a number of layers means; auto counts as false
// here. ConfigError if the model has fewer layers.
model::RecomputedLayers recomputed_layers(const std::string& option, int64_t num_layers);
// The same, and auto: as few layers as are needed for the run to take no more than may be had, of
// the `free_bytes` that its base and data, which are loaded, leave; where it takes more in any
// case, with those with which it takes least.
model::RecomputedLayers choose_recomputation(const std::string& option, const PlannedRun& run,
                                             int64_t free_bytes);

}  // namespace qlora::trainer
