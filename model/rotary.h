// Rotary position embedding, half-split form (Su et al. 2021; formats spec 6.1): with x1, x2 the
// halves of a head, out = (x1 cos - x2 sin, x2 cos + x1 sin). Tables and arithmetic are fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/model_config.h"

namespace qlora::model {

// cos and sin at some positions: each fp32 [tokens, head_dim / 2].
struct RotaryTable {
  at::Tensor cos, sin;
};

class Rotary {
 public:
  Rotary(const ModelConfig& config, at::Device device);
  RotaryTable at_positions(const std::vector<int32_t>& positions) const;

 private:
  at::Tensor inverse_frequencies_;  // fp32 [head_dim / 2]
};

// x [tokens, heads * head_dim] in the compute dtype, rows contiguous, rotated where it lies, out of
// autograd's sight; `inverse` rotates back (the backward pass).
at::Tensor rotate(at::Tensor x, const RotaryTable& table, bool inverse);

}  // namespace qlora::model
