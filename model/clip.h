// Clamping of queries, keys and values (clip_qkv of OLMo, OLMoE and MPT), before rotation.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp.h>

namespace qlora::model {

// x within -limit and limit, a copy whose rows are contiguous; where x lies beyond them its
// gradient is zero.
inline at::Tensor clip(const at::Tensor& x, double limit) {
  return at::clamp(x, -limit, limit).contiguous();
}

}  // namespace qlora::model
