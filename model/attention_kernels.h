#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// A block of scores [kv_heads, group, queries, keys]: query row i is key position first_query + i
// and sees keys up to it.
struct ScoreBlock {
  int64_t kv_heads, group, queries, keys;
  int64_t first_query;  // position of query row 0 among the document's tokens
  float scale;
  int64_t lse_stride;  // tokens between heads in lse; lse[(kv * group + g) * lse_stride + i]
};

// scores (raw q·k) -> softmax(scale · scores) in place, masked keys 0; lse: log-sum-exp of the
// scaled row.
template <typename T>
void causal_softmax(const ScoreBlock& block, T* scores, float* lse);
// scores (raw q·k) -> the same probabilities from the kept lse.
template <typename T>
void causal_probabilities(const ScoreBlock& block, T* scores, const float* lse);
// d_probabilities -> scale · P · (dP - rowsum(dP · P)), in place.
template <typename T>
void causal_softmax_backward(const ScoreBlock& block, const T* probabilities, T* d_probabilities);

// One new query per sequence against its cached keys: q, out [heads, head_dim] (rotated); k, v
// [length, kv_heads * head_dim].
template <typename T>
struct DecodeRow {
  const T* q;
  const T* k;
  const T* v;
  T* out;
  int64_t length;
};
template <typename T>
void decode_attention(const DecodeRow<T>* rows, int64_t num_rows, int64_t heads, int64_t kv_heads,
                      int64_t head_dim, float scale);

}  // namespace qlora::model::cpu
