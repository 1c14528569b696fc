#include "model/block.h"

#include <ATen/ATen.h>

#include <utility>

namespace qlora::model {

const lora::NormWeight& BranchWeights::norm(NormPlace place) const {
  switch (place) {
    case NormPlace::kBefore:
      return before;
    case NormPlace::kQueries:
      return q_norm;
    case NormPlace::kKeys:
      return k_norm;
    case NormPlace::kAfter:
      return after;
    case NormPlace::kSum:
      break;
  }
  return sum;
}

lora::NormWeight& BranchWeights::norm(NormPlace place) {
  return const_cast<lora::NormWeight&>(std::as_const(*this).norm(place));
}

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
    for (const auto* trained : {&norm.trained, &norm.trained_bias})
      if (*trained && !anchor.defined()) anchor = lora::anchor_of(**trained);
  });
  for (const lora::LinearGroup* group : groups())
    if (!anchor.defined()) anchor = group->anchor();
  return anchor;
}

void append_norm(const std::string& module, const NormSpec& spec, const lora::NormWeight& norm,
                 quant::NamedTensors& all) {
  if (spec.by_group)
    for (int64_t group = 0; group < spec.groups; ++group)
      all.emplace_back(spec.tensor(module, group), norm.frozen[group]);
  else if (norm.frozen.defined())
    all.emplace_back(module + ".weight", norm.frozen);
  if (norm.frozen_bias.defined()) all.emplace_back(module + ".bias", norm.frozen_bias);
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
                append_norm(architecture.module(layer, spec.names), spec, norm, all);
              });
  for (const lora::LinearGroup* group : groups())
    for (const lora::LoraLinear& linear : group->layers()) append_linear(linear, all);
  return all;
}

}  // namespace qlora::model
