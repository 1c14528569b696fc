// The frozen weights of a group, one below the other: layers that share an input are dequantized
// into one panel and multiplied at once.
//
//   [y_1 | y_2 | ...] = x [W_1; W_2; ...]ᵀ        dx = [dy_1 | dy_2 | ...] [W_1; W_2; ...]
//
// Each function here runs some of the routes of quant/products/product_routes.h, of which
// LinearGroup takes the first that supports a group's facts.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lora/lora_linear.h"
#include "quant/products/product_routes.h"
#include "quant/products/summed_product.h"
#include "quant/workspace.h"

namespace qlora::lora {

// Facts of the layers' products with x, or with a dy of as many rows. `sums`: ProductFacts::sums.
quant::ProductFacts product_facts(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                                  bool sums);

// ProductRun::kFewRows: y [tokens, sum of out_i] (+)= x [W_1; W_2; ...]ᵀ.
void few_rows_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                           bool accumulate, at::Tensor y);

// ProductRun::kJoined: the same.
void stacked_forward_into(const std::vector<LoraLinear>& layers, const at::Tensor& x,
                          bool accumulate, at::Tensor y, quant::Workspace& workspace);
// dx (+)= Σ_i dy_i W_i; dy [tokens, sum of out_i].
void stacked_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                            bool accumulate, at::Tensor& dx, quant::Workspace& workspace);

// ProductRun::kSummed and kSummedInt8: y_i (+)= scaling_i h_i B_iᵀ + x W_iᵀ where layer i has an
// adapter and h_i is defined, else x W_iᵀ; `accumulate` says for each layer whether y_i holds
// something. With `onto`, fp32, the one y is fp32 and its sum with that.
std::vector<quant::SumTarget> sum_targets(const std::vector<LoraLinear>& layers,
                                          const std::vector<at::Tensor>& h,
                                          const std::vector<bool>& accumulate,
                                          const std::vector<at::Tensor>& y, const at::Tensor& onto);
void summed_forward_into(const std::vector<LoraLinear>& layers, quant::ProductRun run,
                         const at::Tensor& x, const std::vector<quant::SumTarget>& targets,
                         quant::Workspace& workspace);
// dx = g A + Σ_i dy_i W_i: g [tokens, sum of ranks], undefined for no such term, A [sum of ranks,
// in], dy as above.
void summed_input_gradient(const std::vector<LoraLinear>& layers, const at::Tensor& dy,
                           const at::Tensor& g, const at::Tensor& a, const at::Tensor& dx,
                           quant::Workspace& workspace);

}  // namespace qlora::lora
