// The low-rank products of all adapters of a group: what they make of its input, and their
// gradients. Dropout, where there is some, drops other inputs for each adapter, as PEFT's modules
// do.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lora/forward_context.h"
#include "lora/linear_group.h"

namespace qlora::lora {

// The first adapter speaks for the group: rank patterns differ between modules, dropout never does.
const Adapter& any_adapter(const LinearGroup& group);

// H = dropout(x) Aᵀ of all adapters side by side: [tokens, sum of ranks].
at::Tensor low_rank_inputs(const LinearGroup& group, const at::Tensor& x,
                           const ForwardContext& context);
// The same to h, whose rows are contiguous.
void low_rank_inputs_into(const LinearGroup& group, const at::Tensor& x,
                          const ForwardContext& context, const at::Tensor& h);

// dB_i += scaling dy_iᵀ H_i; returns G, the gradient of H: scaling dy_i B_i side by side. dy: one
// of [tokens, out_i] a layer.
at::Tensor gradient_of_b(const LinearGroup& group, const std::vector<at::Tensor>& dy,
                         const at::Tensor& h);

// dA += Gᵀ x. With dropout also dx += G A through each module's mask, unless dx is undefined;
// without it the caller has put G A into dx already.
void gradient_of_a(const LinearGroup& group, const at::Tensor& x, const at::Tensor& g,
                   at::Tensor& dx, const ForwardContext& context);

}  // namespace qlora::lora
