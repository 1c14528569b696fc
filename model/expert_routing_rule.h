// How a mixture of experts chooses, beside its router's weights.
#pragma once

#include <cstdint>

namespace qlora::model {

struct RoutingRule {
  int64_t experts = 0;
  int64_t active = 0;  // of each token, 1 to `experts`
  // A token's weights are divided by their sum (Mixtral, Granite, gpt-oss; Qwen and OLMoE with
  // norm_topk_prob), or stay shares of all experts.
  bool renormalise = true;
  // Mixtral. Else each weight is rounded to the type of the logits (Qwen, Granite, OLMoE,
  // gpt-oss).
  bool weights_in_fp32 = true;
};

}  // namespace qlora::model
