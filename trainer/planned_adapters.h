// What a run trains, told from the shape of its model and its options: the sizes of the trained
// tensors, and what of it each block has, by which its activations are counted.
#pragma once

#include <cstdint>
#include <vector>

#include "lora/whole_modules.h"
#include "model/block_memory.h"
#include "trainer/memory_plan.h"

namespace qlora::trainer {

// Of one block.
struct AdaptedBlock {
  std::vector<model::BranchUse> branches;  // as BlockSpec::branches
  bool norms = false;                      // whether any is trained

  bool any() const;
};

struct PlannedAdapters {
  model::GroupUse first;                 // of what lies below the blocks
  std::vector<AdaptedBlock> blocks;      // as Architecture::block()
  std::vector<int64_t> parameter_sizes;  // numbers of each trained tensor
  int64_t numbers_in_products = 0;       // of those that linear layers multiply by
  int64_t dora_norm_bytes = 0;           // that DoRA keeps beside what is trained
  lora::TrainedEmbeddings embeddings;

  int64_t numbers() const;  // of all that is trained
};

// ConfigError where the run itself would refuse its options.
PlannedAdapters planned_adapters(const PlannedRun& run);

}  // namespace qlora::trainer
