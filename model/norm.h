// Norms of the residual stream, fused with the addition before them, and of rows anywhere else:
//
//   r = residual + delta
//   RMS:        n = r · rstd · (w + offset),               rstd = 1 / sqrt(mean(r²) + eps)
//   LayerNorm:  n = (r - mean) · rstd · (w + offset) + b,  rstd = 1 / sqrt(variance(r) + eps)
//
// (Zhang and Sennrich 2019; Ba, Kiros and Hinton 2016).
//
// The residual stream is fp32 whatever the compute dtype: it is small, and rounding it at every
// layer is what costs a bf16 run its gradient accuracy. Statistics are fp32. The gradients of a
// trained weight and bias are added straight to their fp32 buffers, token by token in order.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora/trained_tensor.h"
#include "model/norm_rule.h"

namespace qlora::model {

struct NormOutput {
  at::Tensor residual;  // fp32 [tokens, hidden]
  at::Tensor normed;    // compute dtype [tokens, hidden]
};

// residual fp32 [tokens, hidden]; delta [tokens, hidden] in the compute dtype, or undefined for
// none; weight and bias [hidden], either may be undefined. Without a delta the residual of the
// result is the one that was given. kNone gives the sum in the compute dtype.
NormOutput add_norm(const at::Tensor& residual, const at::Tensor& delta,
                    const lora::NormWeight& weight, const NormRule& rule, at::ScalarType compute,
                    bool adapters_enabled);

// The n of a residual that was added to already; no gradient.
at::Tensor norm_again(const at::Tensor& residual, const lora::NormWeight& weight,
                      const NormRule& rule, at::ScalarType compute, bool adapters_enabled);

// x [tokens, groups * size] in the compute dtype, its rows contiguous and any distance apart, each
// of a row's groups normed by itself -> [tokens, groups * size], contiguous, of the same dtype.
// weight and bias: [size] for all groups, or [groups, size].
at::Tensor norm_rows(const at::Tensor& x, int64_t groups, const lora::NormWeight& weight,
                     const NormRule& rule, bool adapters_enabled);

}  // namespace qlora::model
