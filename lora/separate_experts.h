// Adapters of experts in the form of transformers 4, which had a Linear for each matrix of an
// expert: for PEFT before 0.17, vLLM and others that know no target_parameters. The form is exact:
// of the factors of gate_up_proj, gate and up each get A, and the rows of B that are theirs.
#pragma once

#include <map>
#include <string>

#include "io/safetensors.h"
#include "lora/lora_options.h"
#include "quant/frozen_weight.h"

namespace qlora::lora {

// What transformers 4 calls the modules: "mlp" or "block_sparse_moe"; "gate_proj" or "w1", ...
struct SeparateNames {
  std::string mlp, gate, up, down;
};

struct SeparateAdapter {
  quant::NamedTensors tensors;
  LoraOptions options;  // for adapter_config.json: no target_parameters
};

// `tensors`: an adapter's by their PEFT names, those of experts one by one. `options`: what it was
// made with, but targets and target_parameters are those of AdapterSet.
SeparateAdapter separate_experts(const quant::NamedTensors& tensors, const LoraOptions& options,
                                 const SeparateNames& names);

// What gate_proj and w1 are of an expert: "gate"; or "up", "down", and empty for another name.
std::string expert_matrix(const std::string& name);

// For an adapter file in this form, `options` being its own: experts and routers become
// target_parameters in place of targets, experts with the ranks and alphas that the tensors and the
// patterns give them. FormatError if gate and up have not both an adapter, or experts of a layer
// differ in rank.
void retarget_separate_experts(const std::string& path, const io::TensorFile& file,
                               LoraOptions& options);
// Makes of its tensors, by their PEFT names, those of gate_up_proj and down_proj of each expert:
// of factors with one A for gate and up that A, with the two Bs one below the other; of others both
// As, and the Bs as blocks of a diagonal.
void join_separate_experts(std::map<std::string, at::Tensor>& stored);

}  // namespace qlora::lora
