// Adapters of single experts and the form that PEFT gives them in a file: one pair of tensors for
// all experts of a parameter,
//
//   lora_A [rank * experts, in], expert by expert     lora_B [out, rank * experts], rank by rank
//
// beside "...experts", or beside "...experts.base_layer" for gate_up_proj where down_proj is
// adapted too. Where the family has gate and up in turn, so has PEFT the rows of the stack's
// lora_B (AdapterTensor::in_turn). The form of transformers 4, in which gate and up are two, is
// that of separate_experts.h.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/attach.h"
#include "quant/frozen_weight.h"

namespace qlora::lora {

// Of `tensors`, by the names of `described`, those of experts stacked, the others as they are.
quant::NamedTensors with_experts_stacked(const std::vector<AdapterTensor>& described,
                                         const quant::NamedTensors& tensors);

// Gives the tensors of a file, in either form, the names that `wanted` has for the experts', and
// their rows the order that they have there; FormatError, naming `path`, if a stack does not divide
// into them.
void take_experts_apart(const std::string& path, const std::vector<AdapterTensor>& wanted,
                        std::map<std::string, at::Tensor>& stored);

// As PEFT: gate_up_proj, which is two matrices, has twice the rank unless the patterns say
// otherwise, and the alpha that keeps the scaling. (PEFT 0.21 doubles alpha with rsLoRA too, and so
// changes the scaling that it means to keep.)
void give_gate_up_both_ranks(LoraOptions& options);

}  // namespace qlora::lora
