// What lies around the experts of a mixture (Shazeer et al. 2017, top-k gating; Mixtral, Jiang et
// al. 2024). The router's logits choose a token's k = `active` experts and their weights,
//
//   p   = softmax(logits of all experts)
//   w_j = p_j or, renormalised, p_j / Σ_i p_i over the k
//   y   = Σ_j w_j expert_j(x)
//
// The tokens of an expert are copied beside each other, so that each expert is a product with a
// matrix of rows, and what the experts give is summed by token:
//
//   route(logits) -> to_experts(x) -> split by rows_of_expert -> experts -> at::cat -> from_experts
//
// Each sum has a fixed order, the larger logit first: a result has the same bits on any number of
// threads. A choice itself has no gradient; its weights have one, towards the logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/expert_routing_rule.h"

namespace qlora::model {

// A token has a row for each expert that it chose. Rows are sorted by expert, those of an expert by
// token. Tensors lie on the logits' device, contiguous.
struct Routed {
  at::Tensor weights;                   // fp32 [tokens, active], the larger logit first
  std::vector<int64_t> rows_of_expert;  // [experts], how many; 0 for one that nobody chose
  at::Tensor token_of_row;              // int64 [tokens * active]
  at::Tensor row_of;                    // int64 [tokens, active], in the order of the weights
};

// logits: [tokens, experts] of any floating type. Among equal logits the lower expert wins, on
// every device; NaN counts as the greatest. Softmax and division are computed in fp32. For the
// backward pass, fp32 [tokens, active] is kept, or [tokens, experts] if not renormalised, and the
// int64 choice. On a GPU it waits for the device. Error if logits and rule do not fit.
Routed route(const at::Tensor& logits, const RoutingRule& rule);

// x [tokens, hidden], float32, bfloat16 or float16 -> [tokens * active, hidden], the rows in the
// experts' order. Backwards, the gradients of a token's rows are summed in fp32 and rounded once.
// Keeps row_of alone.
at::Tensor to_experts(const at::Tensor& x, const Routed& routed);

// y [tokens * active, hidden], what the experts gave for their rows, in the compute dtype ->
// fp32 [tokens, hidden], the sum of each token's rows times their weights. Backwards, a row's
// gradient is rounded to y's type, and the weights' is fp32. Keeps row_of, the weights and, if
// these need a gradient, y.
at::Tensor from_experts(const at::Tensor& y, const Routed& routed);

}  // namespace qlora::model
