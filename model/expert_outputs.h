// What the experts of a layer give for the rows that the router sent them, as one autograd node:
//
//   y_e = down_e(act(gate_e x_e) · up_e x_e)        x_e the rows of expert e
//
// Few rows reach each of many experts, so that what a graph, a copy or a thread's waking costs for
// each of them counts. Rows of all experts lie in one matrix each, and where their weights are
// small, threads take whole experts (model/expert_schedule.h); larger ones are computed one after
// the other by all threads. An expert's sums are the same either way.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lora/forward_context.h"
#include "model/activation_rule.h"
#include "model/block.h"

namespace qlora::model {

// Where rows come from: row r is row token_of_row[r] of x (to_experts()).
struct SourceOfRows {
  at::Tensor x;             // [tokens, hidden], as the rows
  at::Tensor token_of_row;  // int64 [rows]
};

struct ExpertsCall {
  // Must not move or end before the backward pass is done, like the context's workspace.
  const std::vector<ExpertWeights>* experts = nullptr;
  std::vector<int64_t> rows_of_expert;  // [experts]; 0 for those that compute nothing
  ActivationRule activation = {};
  bool narrow_gates = false;  // gate and up are kept in bfloat16 (CausalLm::narrow_gates)
  SourceOfRows source = {};   // undefined, or what is kept for the backward pass in place of rows
};

// rows [sum of rows_of_expert, hidden] in the compute dtype, contiguous, those of an expert
// together, in the experts' order -> the same shape and type. Adapters of experts have neither
// dropout nor DoRA's magnitude (lora/attach.h). For the backward pass it keeps gate and up, the
// adapters' low-rank inputs, and if a gate_up is trained the rows, or where they come from. Error
// if rows and experts do not fit.
at::Tensor expert_outputs(const at::Tensor& rows, const ExpertsCall& call,
                          const lora::ForwardContext& context);

}  // namespace qlora::model
