#include "model/block.h"

#include <ATen/ATen.h>

namespace qlora::model {

std::vector<lora::LinearGroup*> Block::groups() {
  std::vector<lora::LinearGroup*> all;
  for (BranchWeights& branch : branches) all.insert(all.end(), {&branch.in, &branch.out});
  return all;
}

std::vector<const lora::LinearGroup*> Block::groups() const {
  std::vector<const lora::LinearGroup*> all;
  for (const BranchWeights& branch : branches) all.insert(all.end(), {&branch.in, &branch.out});
  return all;
}

at::Tensor Block::anchor(const BlockSpec& spec) const {
  at::Tensor anchor;
  visit_norms(spec, *this, [&](const NormSpec&, const lora::NormWeight& norm) {
    if (norm.trained && !anchor.defined()) anchor = lora::anchor_of(*norm.trained);
  });
  for (const lora::LinearGroup* group : groups())
    if (!anchor.defined()) anchor = group->anchor();
  return anchor;
}

void append_norm(const std::string& module, const lora::NormWeight& norm,
                 quant::NamedTensors& all) {
  all.emplace_back(module + ".weight", norm.frozen);
}

void append_linear(const lora::LoraLinear& linear, quant::NamedTensors& all) {
  for (const auto& [name, tensor] : linear.base->state())
    all.emplace_back(linear.name + "." + name, tensor);
  if (linear.bias.defined()) all.emplace_back(linear.name + ".bias", linear.bias);
}

quant::NamedTensors Block::frozen_state(const Architecture& architecture, int64_t layer) const {
  quant::NamedTensors all;
  visit_norms(architecture.block(layer), *this,
              [&](const NormSpec& spec, const lora::NormWeight& norm) {
                append_norm(architecture.module(layer, spec.names), norm, all);
              });
  for (const lora::LinearGroup* group : groups())
    for (const lora::LoraLinear& linear : group->layers()) append_linear(linear, all);
  return all;
}

}  // namespace qlora::model
