// Causal attention in fp32 without the matrix of scores in memory, as flash_attention_kernels.h has
// it for bf16: blocks of 64 queries against blocks of 64 keys, an online softmax in the forward
// pass, probabilities made again from their log-sum-exp in the backward pass (Dao et al. 2022).
// Scores lie the other way round, [keys, queries], so that a softmax's maxima and sums go from
// vector to vector and never across one. For every instruction set; bits do not depend on the
// number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "model/head_rows.h"

namespace qlora::model::cpu {

using FloatRows = HeadRows<float>;
using ConstFloatRows = HeadRows<const float>;

// Queries whose first one comes after `past` keys of the same document: query i sees keys up to
// past + i. Rows of q begin at token `query`, those of k and v at token `key`.
struct FloatDocument {
  int64_t query, queries, key, past;

  int64_t keys() const { return past + queries; }
};

struct FloatAttention {
  ConstFloatRows q, k, v;  // rotated
  int64_t heads, kv_heads, head_dim;
  float scale;  // of the scores
  std::vector<FloatDocument> documents;
  int64_t tokens;  // of q
};

// out like q; lse [heads, tokens], log-sum-exp of each row of scaled scores, or null.
void float_attention(const FloatAttention& a, FloatRows out, float* lse);

struct FloatAttentionGradients {
  FloatRows q, k, v;
};
// dq, dk, dv from d_out, with `out` and `lse` of the forward pass; of documents without a past.
void float_attention_backward(const FloatAttention& a, ConstFloatRows out, ConstFloatRows d_out,
                              const float* lse, FloatAttentionGradients gradients);

}  // namespace qlora::model::cpu
