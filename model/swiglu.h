// The gated activation of Llama's MLP: silu(gate) · up (Shazeer 2020). Arithmetic in fp32, tensors
// in the compute dtype.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::model {

// What is kept of gate and up from the forward to the backward pass: themselves, or copies in a
// narrower type, of which the backward pass makes its gradients and the activation again.
struct KeptGates {
  at::Tensor gate, up;
};
KeptGates keep_gates(const at::Tensor& gate, const at::Tensor& up, at::ScalarType type);

// gate, up [tokens, intermediate] -> [tokens, intermediate].
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up, const KeptGates& kept);
// Both are kept as they are.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
// Without a gradient, of what was kept, as `type`.
at::Tensor swiglu_again(const KeptGates& kept, at::ScalarType type);

}  // namespace qlora::model
