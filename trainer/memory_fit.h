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

// The fastest settings whose peak stays within `limit` bytes: the largest micro-batch first without
// recomputation, then with it; micro-batch times accumulation stays the same. On a GPU an optimizer
// whose state is paged out as far as possible is tried before each smaller micro-batch.
MemoryFit fit_memory(const PlannedRun& run, int64_t gradient_accumulation_steps, int64_t limit);

// Share of the free memory that a run may plan to take: other programs breathe too.
constexpr double kUsableShare = 0.9;

// "true", "false", or "auto": yes if the run without it takes more than may be had, though its base
// and data, which are loaded, leave `free_bytes`.
bool choose_recomputation(const std::string& option, PlannedRun run, int64_t free_bytes);

}  // namespace qlora::trainer
