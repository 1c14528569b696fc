// What an attention layer is, as numbers: heads, where they lie in a row, and what becomes of the
// products of queries and keys before the softmax. A score is
//
//   s = cap(scale * q k) + bias,   cap(s) = softcap * tanh(s / softcap)
//
// of the keys that a query sees, and minus infinity of all others. Kernels, routes and the memory
// plan read it.
#pragma once

#include <cmath>
#include <cstdint>

namespace qlora::model {

// Where the heads lie in a row of one matrix that holds q, k and v, in elements. Query head h is at
// q + h / share * q_step + h % share * head_dim, where `share` query heads use one key head;
// key head h is at k + h * kv_step, its values at v + h * kv_step.
struct HeadLayout {
  int64_t q = 0, k = 0, v = 0;
  int64_t q_step = 0, kv_step = 0;  // to the next key head, or the queries that share it
};

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;     // of the products of queries and keys
  double softcap = 0;  // 0: none
  int64_t window = 0;  // keys that a query sees, itself included: j with i - window < j <= i;
                       // 0: all. Positions are those inside a document
  bool causal = true;  // a query sees no key behind it
  bool position_bias = false;  // AttentionContext::position_bias is added (ALiBi)
  bool sinks = false;          // AttentionContext::sinks take probability and give no value
  bool relative_bias = false;  // AttentionContext::relative_bias is added (T5); not with the other
  bool cross = false;          // keys and values are another text's: AttentionContext::key_seqlens
  HeadLayout layout = {};      // used where q, k and v are one tensor

  int64_t share() const { return heads / kv_heads; }                   // query heads of a key head
  int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }  // of a row of q, k and v
  // Nothing but products, the causal mask and the softmax.
  bool is_plain() const {
    return softcap == 0 && window == 0 && causal && !position_bias && !sinks && !relative_bias &&
           !cross;
  }
};

// 1 / sqrt(head_dim), the scale of most models (Vaswani et al. 2017).
inline float inverse_root(int64_t head_dim) {
  return 1.0f / std::sqrt(static_cast<float>(head_dim));
}

// Llama's: causal, scaled by 1 / sqrt(head_dim).
inline AttentionShape causal_attention(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {heads, kv_heads, head_dim, inverse_root(head_dim)};
}

// All queries, then all keys, then all values (GPT-2, Phi-3).
inline HeadLayout heads_in_order(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {0, heads * head_dim, (heads + kv_heads) * head_dim, heads / kv_heads * head_dim,
          head_dim};
}

// Key head by key head: the queries that share it, it, and its values (GPT-NeoX, BLOOM, Falcon).
inline HeadLayout heads_in_groups(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  const int64_t share = heads / kv_heads, step = (share + 2) * head_dim;
  return {0, share * head_dim, (share + 1) * head_dim, step, step};
}

}  // namespace qlora::model
