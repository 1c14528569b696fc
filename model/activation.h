// The activation of an MLP, gated (Shazeer 2020): act(gate) · up, or not: act(x). Arithmetic in
// fp32, tensors in the compute dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/activation_rule.h"

namespace qlora::model {

// What is kept of gate and up from the forward to the backward pass: themselves, or copies in a
// narrower type, of which the backward pass makes its gradients and the activation again. Without a
// gate, x stands at `gate` and `up` is undefined.
struct KeptGates {
  at::Tensor gate, up;
};
KeptGates keep_gates(const at::Tensor& gate, const at::Tensor& up, at::ScalarType type);
// Of both side by side.
KeptGates keep_halves(const at::Tensor& gate_up, at::ScalarType type);

// gate, up [tokens, inner], rows contiguous -> [tokens, inner]. `up` undefined: not gated.
at::Tensor activate(const at::Tensor& gate, const at::Tensor& up, const KeptGates& kept,
                    const ActivationRule& rule = {});
// What they are is kept.
at::Tensor activate(const at::Tensor& gate, const at::Tensor& up, const ActivationRule& rule = {});

// gate_up [tokens, 2 * inner], the gate in its first half -> [tokens, inner].
at::Tensor activate_halves(const at::Tensor& gate_up, const KeptGates& kept,
                           const ActivationRule& rule = {});

// Without a gradient, of what was kept, as `type`.
at::Tensor activate_again(const KeptGates& kept, at::ScalarType type,
                          const ActivationRule& rule = {});

// Without a graph, the gradients of gate and up side by side, [tokens, 2 * inner], as one product
// with the two weights' rows takes them, of d_out's type; without a gate that of x alone.
at::Tensor activation_gradients(const KeptGates& kept, const at::Tensor& d_out,
                                const ActivationRule& rule = {});

}  // namespace qlora::model
