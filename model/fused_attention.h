// Attention by ATen's FlashAttention kernels (Dao 2023), which a GPU has for 16-bit types: one
// launch for all documents, grouped queries without copies of their keys.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "model/attention_call.h"

namespace qlora::model {

bool has_fused_attention(const AttentionShape& shape, at::ScalarType dtype);

at::Tensor fused_attention(const AttentionCall& call);

// What attention without sinks gave, as sinks change it: a sink is one more score whose value is
// zero. out: [tokens, heads, head_dim], scaled in place; lse: fp32 [heads, tokens], the logarithms
// of the sums of exp(score); sinks: fp32 [heads]. Gives the logarithms with the sinks.
at::Tensor add_sinks(const at::Tensor& out, const at::Tensor& lse, const at::Tensor& sinks);

}  // namespace qlora::model
