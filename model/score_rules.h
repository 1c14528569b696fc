// What becomes of the products of queries and keys before the softmax, as attention's kernels take
// it (attention_shape.h).
#pragma once

#include <algorithm>
#include <cstdint>

namespace qlora::model::cpu {

struct ScoreRules {
  float scale;
  float softcap = 0;   // 0: none
  int64_t window = 0;  // keys that a query sees, itself included; 0: all
  // [heads, bias_stride]: by the key's position in its document; with a reach by its distance, how
  // far it is behind the query: column reach - 1 + distance, of distances shorter than the reach.
  const float* bias = nullptr;
  int64_t bias_stride = 0;
  int64_t reach = 0;
  const float* sinks = nullptr;  // [heads]: the logit of a key without a value

  // Whether scores are more than scaled products under the causal mask.
  bool changes_scores() const { return softcap != 0 || window > 0 || bias != nullptr; }
  bool has_distances() const { return reach > 0; }
  // What is added to the scores of the query at a position, by the key's position; or null.
  const float* bias_of(int64_t head, int64_t position) const {
    if (bias == nullptr) return nullptr;
    return bias + head * bias_stride + (has_distances() ? reach - 1 - position : 0);
  }
  // Biases by distance of `size` queries and as many keys from these positions on: that of query
  // i and key k of them comes to to[size - 1 + i - k], so that those of neighbouring queries are
  // neighbours. Distances that no query and key of a document have get any bias. to: [2 size].
  void distances_of_block(int64_t head, int64_t query, int64_t key, int64_t size, float* to) const {
    const float* row = bias + head * bias_stride;
    const int64_t first = reach - 1 + key - query + size - 1;
    for (int64_t i = 0; i < 2 * size; ++i)
      to[i] = row[std::clamp<int64_t>(first - i, 0, 2 * reach - 2)];
  }
  // The first key that the query at a position sees.
  int64_t first_key(int64_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};

}  // namespace qlora::model::cpu
