// Attention in fp32 without the matrix of scores in memory, as flash_attention_kernels.h has
// it for bf16: blocks of 64 queries against blocks of 64 keys, an online softmax in the forward
// pass, probabilities made again from their log-sum-exp in the backward pass (Dao et al. 2022).
// Scores lie the other way round, [keys, queries], so that a softmax's maxima and sums go from
// vector to vector and never across one. For every instruction set; bits do not depend on the
// number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "model/head_rows.h"
#include "model/score_rules.h"

namespace qlora::model::cpu {

using FloatRows = HeadRows<float>;
using ConstFloatRows = HeadRows<const float>;

// Queries whose first one is at position `past` of the document: where attention is causal, query i
// sees keys up to past + i, and there are past + queries of them. Rows of q begin at token `query`,
// those of k and v at token `key`.
struct FloatDocument {
  int64_t query, queries, key, keys, past = 0;
};

struct FloatAttention {
  ConstFloatRows q, k, v;  // rotated
  int64_t heads, kv_heads, head_dim;
  ScoreRules rules;
  std::vector<FloatDocument> documents;
  int64_t tokens;  // of q
  bool causal = true;
};

// out like q, heads side by side; lse [heads, tokens], log-sum-exp of each row of scores, or null.
void float_attention(const FloatAttention& a, FloatRows out, float* lse);

struct FloatAttentionGradients {
  FloatRows q, k, v;
};
// dq, dk, dv from d_out, with `out` and `lse` of the forward pass; of documents without a past.
void float_attention_backward(const FloatAttention& a, ConstFloatRows out, ConstFloatRows d_out,
                              const float* lse, FloatAttentionGradients gradients);

}  // namespace qlora::model::cpu
