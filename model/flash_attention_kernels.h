// Attention in bf16 without the matrix of scores in memory: blocks of 64 queries against
// blocks of 64 keys, an online softmax in the forward pass, probabilities made again from their
// log-sum-exp in the backward pass (Dao et al. 2022). Documents cost their own squares, grouped
// queries share their keys.
#pragma once

#include <cstdint>
#include <vector>

#include "model/head_rows.h"
#include "model/score_rules.h"

namespace qlora::model::cpu {

struct FlashAttention {
  HeadRows<const uint16_t> q, k, v;  // bf16 bits, rotated
  int64_t heads, kv_heads, head_dim;
  ScoreRules rules;
  std::vector<int32_t> cu_seqlens;  // document d is tokens [cu_seqlens[d], cu_seqlens[d + 1])
  // ... and sees rows [key_seqlens[d], key_seqlens[d + 1]) of k and v. Where attention is causal
  // these are the same.
  std::vector<int32_t> key_seqlens;
  bool causal = true;

  int64_t tokens() const { return cu_seqlens.back(); }
  int64_t num_keys() const { return key_seqlens.back(); }
};

// AVX-512 BF16; head_dim a multiple of 16.
bool supports_flash_avx512(int64_t head_dim);

// out like q; heads side by side; lse [heads, tokens]: log-sum-exp of each row of scores.
void flash_forward(const FlashAttention& a, HeadRows<uint16_t> out, float* lse);

struct FlashGradients {
  HeadRows<uint16_t> q, k, v;
};
// dq, dk, dv from d_out, with `out` and `lse` of the forward pass.
void flash_backward(const FlashAttention& a, HeadRows<const uint16_t> out,
                    HeadRows<const uint16_t> d_out, const float* lse, FlashGradients gradients);

}  // namespace qlora::model::cpu
