// RMSNorm fused with the residual addition before it (Zhang & Sennrich 2019; formats spec 6.1):
//
//   r = residual + delta        n = r · rsqrt(mean(r²) + eps) · weight
//
// The residual stream is fp32 whatever the compute dtype: it is small, and rounding it at every
// layer is what costs a bf16 run its gradient accuracy. Statistics are fp32. A trained weight's
// gradient, Σ dn · r · rsqrt(...), is added straight to its fp32 buffer, token by token in order.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::model {

struct NormOutput {
  at::Tensor residual;  // fp32 [tokens, hidden]
  at::Tensor normed;    // compute dtype [tokens, hidden]
};

// residual fp32 [tokens, hidden]; delta [tokens, hidden] in the compute dtype, or undefined for
// none; weight fp32 [hidden]; weight_gradient fp32 [hidden], undefined for a frozen weight. Without
// a delta the residual of the result is the one that was given.
NormOutput add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                        const at::Tensor& weight, double eps, at::ScalarType compute,
                        const at::Tensor& weight_gradient = {});

// The n of a residual that was added to already; no gradient.
at::Tensor rms_norm(const at::Tensor& residual, const at::Tensor& weight, double eps,
                    at::ScalarType compute);

}  // namespace qlora::model
