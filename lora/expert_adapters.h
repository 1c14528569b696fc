// Adapters of single experts and the form that PEFT gives them in a file: one pair of tensors for
// all experts of a parameter,
//
//   lora_A [rank * experts, in], expert by expert     lora_B [out, rank * experts], rank by rank
//
// beside "...experts", or beside "...experts.base_layer" for gate_up_proj where down_proj is
// adapted too. transformers 4 had a Linear for each matrix of an expert, and its adapters gate and
// up apart.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/attach.h"
#include "quant/frozen_weight.h"

namespace qlora::lora {

// Those of experts stacked, the others as they are.
quant::NamedTensors with_experts_stacked(const quant::NamedTensors& tensors);

// Gives the tensors of a file, in either form, the names that `wanted` has for the experts';
// FormatError, naming `path`, if a stack does not divide into them.
void take_experts_apart(const std::string& path, const std::vector<AdapterTensor>& wanted,
                        std::map<std::string, at::Tensor>& stored);

// What gate_proj and w1 are of an expert: "gate"; or "up", "down", and empty for another name.
std::string expert_matrix(const std::string& name);
// The same of "...experts.3.gate_proj"; empty for another module: an adapter in the form of
// transformers 4.
std::string separate_expert_matrix(const std::string& module);

// As PEFT: gate_up_proj, which is two matrices, has twice the rank and alpha unless the patterns
// say otherwise.
void give_gate_up_both_ranks(LoraOptions& options);

}  // namespace qlora::lora
