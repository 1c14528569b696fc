// One call of attention(), as its routes take it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/attention.h"
#include "model/score_rules.h"

namespace qlora::model {

struct AttentionCall {
  const std::vector<at::Tensor>& qkv;  // three tensors or one
  const AttentionShape& shape;
  const RotaryTable* rotary;  // or null
  const AttentionContext& context;
  at::Tensor sinks = {};  // the layer's, or undefined

  int64_t tokens() const { return qkv[0].size(0); }
  // Document d sees rows [key_seqlens[d], key_seqlens[d + 1]) of the keys.
  const std::vector<int32_t>& key_seqlens() const {
    return shape.cross ? context.key_seqlens : context.cu_seqlens;
  }
};

// The shape's rules for the scores as the kernels of the CPU take them, which read the call's bias
// and sinks.
cpu::ScoreRules score_rules(const AttentionCall& call);

// q, k and v as tensors of their own, [tokens, heads * head_dim] and [tokens, kv_heads * head_dim]:
// views where the heads of one lie side by side, else copies. Differentiable.
std::vector<at::Tensor> separate_heads(const std::vector<at::Tensor>& qkv,
                                       const AttentionShape& shape);

// Rotates the queries and keys of three tensors or one where they lie, out of autograd's sight;
// nothing without a table.
void rotate_heads(const std::vector<at::Tensor>& qkv, const AttentionShape& shape,
                  const RotaryTable* table, bool inverse);

}  // namespace qlora::model
