// What the targets of a recipe mean in a model, as PEFT 0.21 with transformers 5 has it.
#pragma once

#include <optional>

#include "lora/lora_options.h"
#include "lora/separate_experts.h"
#include "model/architecture.h"

namespace qlora::model {

// "peft-default" becomes names (default_targets.h). In models whose targets mean experts (Mixtral,
// Qwen3-MoE, OLMoE), all-linear and the names of an expert's matrices (w1, w2, w3, gate_proj,
// up_proj, down_proj) become target_parameters, of which gate_up_proj has twice the rank at the
// same scaling, for it is two matrices; all-linear is attention, router and experts, and dense
// layers' MLPs get nothing. Any other model's options stay as they are: all-linear leaves experts
// and routers out. Errors of name_default_targets().
void resolve_expert_targets(const Architecture& architecture, lora::LoraOptions& options);

// What the experts' matrices are called where each is a Linear, as in transformers 4; nothing for
// families that had them stacked then too, and for models without experts.
std::optional<lora::SeparateNames> separate_names(const Architecture& architecture);

}  // namespace qlora::model
