// The choice of experts and the sums of their rows of stock ATen operations, on any device, without
// gradients; what expert_routing_kernels.h has for the CPU. Nothing is added by atomics: every
// result has the same bits each time.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::model::composed {

// logits fp32 [tokens, experts] -> int64 [tokens, active], the largest first; among equals the
// lower expert comes first, and NaN before any number.
at::Tensor choose_experts(const at::Tensor& logits, int64_t active);

// rows [tokens * active, width], row_of int64 [tokens, active], weights fp32 [tokens, active] or
// undefined -> fp32 [tokens, width], the sum of each token's rows, times their weights.
at::Tensor sum_rows(const at::Tensor& rows, const at::Tensor& row_of, const at::Tensor& weights);

// d_sum fp32 [tokens, width] -> writes d_rows, which is as rows, and where `rows` is defined
// d_weights, fp32 [tokens, active].
void sum_rows_backward(const at::Tensor& d_sum, const at::Tensor& rows, const at::Tensor& row_of,
                       const at::Tensor& weights, const at::Tensor& d_rows,
                       const at::Tensor& d_weights);

}  // namespace qlora::model::composed
