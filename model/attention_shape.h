// The numbers of an attention: what its kernels have to know.
#pragma once

#include <cmath>
#include <cstdint>

namespace qlora::model {

// Where the heads lie in a row of one matrix that gives queries, keys and values, in elements:
// query head h at q + h / share * q_step + h % share * head_dim, where `share` queries have one
// key.
struct HeadLayout {
  int64_t q = 0, k = 0, v = 0;      // of the first head
  int64_t q_step = 0, kv_step = 0;  // to the next key's queries, to the next key
};

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;     // of the products of queries and keys
  double softcap = 0;  // of the scores: cap tanh(s / cap); 0: none
  int64_t window = 0;  // keys that a query sees, itself included; 0: all before it
  bool causal = true;
  HeadLayout layout = {};  // of one fused matrix
};

// Vaswani et al. 2017, section 3.2.1.
inline float scale_of_width(int64_t head_dim) {
  return 1.0f / std::sqrt(static_cast<float>(head_dim));
}

}  // namespace qlora::model
