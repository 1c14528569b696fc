// Matrices side by side in one: how the outputs and gradients of layers that share an input lie in
// memory, so that one product serves them all.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace qlora::lora {

// The columns of `all` [rows, sum of widths] as tensors [rows, width] over the same memory. They
// are no views to autograd: each can be the output of a node of its own.
std::vector<at::Tensor> columns_of(const at::Tensor& all, const std::vector<int64_t>& widths);

// The matrix whose columns these are, in this order; undefined if they do not lie so.
at::Tensor joined_columns(const std::vector<at::Tensor>& parts);

}  // namespace qlora::lora
