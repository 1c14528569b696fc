// What becomes of the products of queries and keys before the softmax, as attention's kernels take
// it (attention_shape.h).
#pragma once

#include <cstdint>

namespace qlora::model::cpu {

struct ScoreRules {
  float scale;
  float softcap = 0;            // 0: none
  int64_t window = 0;           // keys that a query sees, itself included; 0: all
  const float* bias = nullptr;  // [heads, bias_stride] by the key's position in its document
  int64_t bias_stride = 0;
  const float* sinks = nullptr;  // [heads]: the logit of a key without a value

  // Whether scores are more than scaled products under the causal mask.
  bool changes_scores() const { return softcap != 0 || window > 0 || bias != nullptr; }
  const float* bias_of(int64_t head) const {
    return bias == nullptr ? nullptr : bias + head * bias_stride;
  }
  // The first key that the query at a position sees.
  int64_t first_key(int64_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};

}  // namespace qlora::model::cpu
