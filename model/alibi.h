// Attention with linear biases (Press, Smith, Lewis 2022): in place of positions, what each head
// adds to a score is a slope times the key's position in its document.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qlora::model {

struct AlibiSpec {
  std::vector<float> slopes;  // one for each head; empty: there are no such biases
  float scale = 1;            // of the products of slope and position
  // Slopes and positions, and then their products, are rounded to bfloat16 (Falcon): scores depend
  // on where in the document the keys are, not only on distances.
  bool rounds_to_bfloat16 = false;

  bool present() const { return !slopes.empty(); }
};

// Of a power of two of heads 2^(-8 i / heads), i = 1, 2, ..., heads. Of other numbers those of the
// largest power of two below, then every other one of twice that power. MPT says the same
// otherwise: every other slope of the next power of two, from the second one on and then from the
// first one on.
std::vector<float> alibi_slopes(int64_t heads);

// AttentionContext::position_bias for documents of up to so many positions: fp32 [heads,
// positions].
at::Tensor alibi_biases(const AlibiSpec& alibi, int64_t positions, at::Device device);

}  // namespace qlora::model
