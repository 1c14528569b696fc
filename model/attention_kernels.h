#pragma once

#include <cstdint>

#include "model/score_rules.h"

namespace qlora::model::cpu {

// One new query per sequence against its cached keys: q, out [heads, head_dim] (rotated); k, v
// [length, kv_heads * head_dim], of which the first is at position `first`.
template <typename T>
struct DecodeRow {
  const T* q;
  const T* k;
  const T* v;
  T* out;
  int64_t length, first = 0;
};
// Rows have the keys of the rules' window and no others.
template <typename T>
void decode_attention(const DecodeRow<T>* rows, int64_t num_rows, int64_t heads, int64_t kv_heads,
                      int64_t head_dim, const ScoreRules& rules);

}  // namespace qlora::model::cpu
