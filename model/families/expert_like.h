// What the families with experts have in common: Llama's block with a mixture in the MLP's place.
#pragma once

#include <vector>

#include "model/families/llama_like.h"

namespace qlora::model {

struct ExpertSizes {
  RoutingRule routing;
  int64_t inner = 0;  // of one expert
};

// Class defaults of a configuration.
struct ExpertDefaults {
  int64_t experts = 8, active = 2;
  int64_t inner = 0;             // 0: intermediate_size
  bool renormalise = true;       // where no key says it
  bool reads_norm_topk = false;  // norm_topk_prob
  bool weights_in_fp32 = false;
};

// num_local_experts or num_experts, num_experts_per_tok, moe_intermediate_size, norm_topk_prob.
// FormatError naming the key for more active experts than there are.
ExpertSizes read_expert_sizes(ConfigReader& config, const LlamaSizes& sizes,
                              const ExpertDefaults& defaults);

// Experts under the names of transformers 5: mlp.gate, mlp.experts.
ExpertsSpec experts_of(const LlamaSizes& sizes, const ExpertSizes& experts);

// In place of the MLP of all layers, or of these.
void use_experts(Architecture& architecture, const ExpertsSpec& experts);
void use_experts(Architecture& architecture, const ExpertsSpec& experts,
                 const std::vector<bool>& layers);

}  // namespace qlora::model
