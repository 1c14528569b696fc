// Grouped-query attention over rows laid end to end: each document attends to itself alone, so a
// packed batch costs the sum of its documents' squares and no document sees another. RoPE is
// applied inside. attention_shape.h says what a layer computes, attention_routes.h by which
// kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/attention_shape.h"
#include "model/kv_cache.h"
#include "model/rotary.h"

namespace qlora::model {

// What all layers of a pass share.
struct AttentionContext {
  std::vector<int32_t> cu_seqlens;  // document d is tokens [cu_seqlens[d], cu_seqlens[d + 1])
  KvCache* cache = nullptr;         // generation: document d continues sequence d
  at::Tensor boundaries = {};       // cu_seqlens on the GPU that the model is on, else undefined
  // fp32 [heads, positions] on the model's device, by a key's position in its document (ALiBi:
  // slope times position), of layers whose shape says position_bias.
  at::Tensor position_bias = {};
  // fp32 [heads] of each layer, of those whose shape says sinks: a logit that takes probability and
  // gives no value (gpt-oss).
  std::vector<at::Tensor> sinks = {};
  // fp32 [heads, 2 reach - 1] on the model's device, of layers whose shape says relative_bias: what
  // relative_bias.h gives for a reach of most_keys() or more. No gradient comes to it.
  at::Tensor relative_bias = {};
  // Of layers whose shape says cross: document d sees rows [key_seqlens[d], key_seqlens[d + 1]) of
  // the keys and values that it is given. All of these are some document's.
  std::vector<int32_t> key_seqlens = {};

  int64_t longest() const;    // tokens of the longest document
  int64_t most_keys() const;  // of it, with those that the cache has
};

// qkv: q [tokens, heads * head_dim] and k, v [tokens, kv_heads * head_dim], each of which may be
// columns of a wider matrix; or all in one, [tokens, (heads + 2 * kv_heads) * head_dim] in
// shape.layout. Compute dtype -> like q. `rotary` has each token's row, null: q and k are not
// rotated; else they are where they lie. `layer` indexes the cache and the sinks. With a cache
// there is no gradient. The gradients of q, k and v lie side by side in one buffer, of cross-
// attention those of k and v; that of one tensor is one in its layout. Error if the tensors are not
// of the shape.
at::Tensor attention(const std::vector<at::Tensor>& qkv, const AttentionShape& shape,
                     const RotaryTable* rotary, const AttentionContext& context, int64_t layer);

}  // namespace qlora::model
