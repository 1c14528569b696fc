// The frozen weights of a group, one below the other: layers that share an input are dequantized
// into one panel and multiplied at once.
//
//   [y_1 | y_2 | ...] = x [W_1; W_2; ...]ᵀ        dx = [dy_1 | dy_2 | ...] [W_1; W_2; ...]
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lora/lora_linear.h"
#include "quant/workspace.h"

namespace qlora::lora {

// Whether there are several layers, each of which has nothing but its dequantized weight in its
// product: nothing trained whole, no magnitudes.
bool can_stack(const std::vector<LoraLinear>& layers);

// y [tokens, sum of out_i] (+)= x [W_1; W_2; ...]ᵀ.
void stacked_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                          bool accumulate, at::Tensor y, quant::Workspace& workspace);
// dx (+)= Σ_i dy_i W_i; dy [tokens, sum of out_i].
void stacked_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                            bool accumulate, at::Tensor& dx, quant::Workspace& workspace);

// Whether the layers' products and their adapters' go into one sum (quant/summed_product.h): x in a
// type that has the kernel; dequantized or 16-bit weights, or LLM.int8() codes in all of them;
// adapters without magnitudes.
bool can_sum(const std::vector<LoraLinear>& layers, const at::Tensor& x);

// Whether besides that the sum may be taken onto a residual stream: of one layer, without bias.
bool can_sum_onto(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                  bool adapters_enabled);

// y_i (+)= scaling_i h_i B_iᵀ + x W_iᵀ where layer i has an adapter and h_i is defined, else x
// W_iᵀ; `accumulate` says for each layer whether y_i holds something. With `onto`, fp32, the
// one y is fp32 and its sum with that.
void summed_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                         const std::vector<at::Tensor>& h, const std::vector<bool>& accumulate,
                         const std::vector<at::Tensor>& y, const at::Tensor& onto,
                         quant::Workspace& workspace);
// dx = g A + Σ_i dy_i W_i: g [tokens, sum of ranks], undefined for no such term, A [sum of ranks,
// in], dy as above.
void summed_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                           const at::Tensor& g, const at::Tensor& a, const at::Tensor& dx,
                           quant::Workspace& workspace);

}  // namespace qlora::lora
