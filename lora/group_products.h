// The passes of a group's products without autograd: what the nodes of LinearGroup run, and nodes
// that run many groups at once (model/expert_outputs.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lora/forward_context.h"
#include "lora/linear_group.h"

namespace qlora::lora {

// What a group reads, x [tokens, in] with contiguous rows, and H = x Aᵀ of its adapters
// (low_rank_inputs()), which is undefined where there are none or they are off.
struct GroupInput {
  at::Tensor x, h;
};

// Error if the context has no workspace, a layer no weight, or x another shape.
void check_group_input(const LinearGroup& group, const at::Tensor& x,
                       const ForwardContext& context);

// The sum of out_i, in columns.
int64_t outputs_width(const LinearGroup& group);

// The outputs y_i side by side in `all` [tokens, sum of out_i], contiguous, of x's dtype: frozen
// products plus scaling H_i B_iᵀ; returns each of them. With a residual, for a group that sums onto
// it, `all` is fp32 and its sum with the product. What DoRA's magnitudes scaled goes to `scaled`
// where it is wanted, one a layer with magnitude.
std::vector<at::Tensor> group_outputs(const LinearGroup& group, const GroupInput& input,
                                      const at::Tensor& residual, const ForwardContext& context,
                                      const at::Tensor& all,
                                      std::vector<at::Tensor>* scaled = nullptr);

// From dy, one of [tokens, out_i] a layer with contiguous rows: adds the gradients of what is
// trained in the group, and writes that of x to dx [tokens, in] unless it is undefined. `scaled` as
// group_outputs() gave it.
void group_gradients(const LinearGroup& group, const GroupInput& input,
                     const std::vector<at::Tensor>& scaled, const std::vector<at::Tensor>& dy,
                     at::Tensor dx, const ForwardContext& context);

// Σ_i dy_i W_i to dx, of frozen weights alone.
void frozen_input_gradient(const LinearGroup& group, const std::vector<at::Tensor>& dy,
                           at::Tensor dx, const ForwardContext& context);

}  // namespace qlora::lora
