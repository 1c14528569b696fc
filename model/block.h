// The weights of one block, in the shape of its description (model/block_spec.h).
#pragma once

#include <string>
#include <vector>

#include "lora/linear_group.h"
#include "lora/trained_tensor.h"
#include "model/architecture.h"
#include "quant/frozen_weight.h"

namespace qlora::model {

struct ExpertWeights {
  lora::LinearGroup gate_up, down;  // of one layer each
};

struct BranchWeights {
  lora::NormWeight before, after, sum, q_norm, k_norm;
  at::Tensor sinks;              // fp32 [heads] of an attention that has them
  lora::LinearGroup in, out;     // what reads the branch's input; what ends in the stream
  lora::LinearGroup of_encoder;  // what cross-attention reads the encoder's output by
  // Of experts, where `in` and `out` are the shared one's, if there is one.
  lora::LinearGroup router, shared_gate;
  std::vector<ExpertWeights> experts;

  lora::NormWeight& norm(NormPlace place);
  const lora::NormWeight& norm(NormPlace place) const;
  // In the order of Branch::groups(), those that are there.
  std::vector<const lora::LinearGroup*> groups() const;
  // In that order. Layers of gate and up learn from `spec` how files have their rows.
  void set_groups(const Branch& spec, std::vector<lora::LinearGroup> groups);
};

struct Block {
  std::vector<BranchWeights> branches;

  // The groups of linear layers in the order of Branch::groups(); those without layers are left
  // out.
  std::vector<lora::LinearGroup*> groups();
  std::vector<const lora::LinearGroup*> groups() const;
  // A leaf of the block's autograd nodes if anything in it is trained, else undefined.
  at::Tensor anchor(const BlockSpec& spec) const;
  // The sinks of its attentions by their Hugging Face names.
  quant::NamedTensors named_sinks(const Architecture& architecture, int64_t layer) const;
  // Its frozen tensors by their Hugging Face names, where it is layer `layer`.
  quant::NamedTensors frozen_state(const Architecture& architecture, int64_t layer) const;
};

// Calls visit(spec, weight) for the norms that are there, in the order of for_each_norm().
template <typename Weights, typename Visit>
void visit_norms(const BlockSpec& spec, Weights& block, const Visit& visit) {
  for (size_t b = 0; b < spec.branches.size(); ++b)
    for_each_norm(spec.branches[b], [&](NormPlace place, const NormSpec& norm) {
      visit(norm, block.branches[b].norm(place));
    });
}

// Weight and bias of a norm, as far as it has them, and the same of a linear layer, each by its
// name.
void append_norm(const std::string& module, const NormSpec& spec, const lora::NormWeight& norm,
                 quant::NamedTensors& all);
void append_linear(const lora::LoraLinear& linear, quant::NamedTensors& all);

}  // namespace qlora::model
