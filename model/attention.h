// Causal grouped-query attention over rows laid end to end: each document attends to itself alone,
// so a packed batch costs the sum of its documents' squares and no document sees another. RoPE is
// applied inside.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/attention_shape.h"
#include "model/kv_cache.h"
#include "model/rotary.h"

namespace qlora::model {

struct AttentionContext {
  std::vector<int32_t> cu_seqlens;  // document d is tokens [cu_seqlens[d], cu_seqlens[d + 1])
  RotaryTable rotary;               // at each token's position
  KvCache* cache = nullptr;         // generation: document d continues sequence d
  at::Tensor boundaries = {};       // cu_seqlens on the GPU that the model is on, else undefined

  int64_t longest() const;  // tokens of the longest document
};

// q and k are rotated where they lie.
//
// q [tokens, heads * head_dim], k, v [tokens, kv_heads * head_dim] before RoPE, compute dtype ->
// like q. `layer` indexes the cache. With a cache there is no gradient.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionShape& shape, const AttentionContext& context, int64_t layer);

}  // namespace qlora::model
