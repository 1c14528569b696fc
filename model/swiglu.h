// The gated activation of Llama's MLP: silu(gate) · up (Shazeer 2020). Arithmetic in fp32, tensors
// in the compute dtype.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::model {

// gate, up [tokens, intermediate] -> [tokens, intermediate].
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace qlora::model
