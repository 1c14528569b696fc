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

std::vector<const lora::LinearGroup*> BranchWeights::groups() const {
  std::vector<const lora::LinearGroup*> all;
  const auto add = [&all](const lora::LinearGroup& group) {
    if (!group.layers().empty()) all.push_back(&group);
  };
  add(router);
  for (const ExpertWeights& expert : experts) {
    add(expert.gate_up);
    add(expert.down);
  }
  add(in);
  add(of_encoder);
  add(out);
  add(shared_gate);
  return all;
}

void BranchWeights::set_groups(const Branch& spec, std::vector<lora::LinearGroup> groups) {
  auto next = groups.begin();
  const auto take = [&next](lora::LinearGroup& group) { group = std::move(*next++); };
  if (const ExpertsSpec* of = spec.experts()) {
    take(router);
    experts.resize(static_cast<size_t>(of->routing.experts));
    for (ExpertWeights& expert : experts) {
      take(expert.gate_up);
      expert.gate_up.layers().front().rows_in_turn = of->files.stacked_by_inputs;
      take(expert.down);
    }
    if (of->shared) {
      take(in);
      take(out);
    }
    if (of->shared_gate.present()) take(shared_gate);
    return;
  }
  take(in);
  if (spec.attention() && spec.attention()->shape.cross) take(of_encoder);
  take(out);
}

std::vector<const lora::LinearGroup*> Block::groups() const {
  std::vector<const lora::LinearGroup*> all;
  for (const BranchWeights& branch : branches)
    for (const lora::LinearGroup* group : branch.groups()) all.push_back(group);
  return all;
}

std::vector<lora::LinearGroup*> Block::groups() {
  std::vector<lora::LinearGroup*> all;
  for (const lora::LinearGroup* group : std::as_const(*this).groups())
    all.push_back(const_cast<lora::LinearGroup*>(group));
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

quant::NamedTensors Block::named_sinks(const Architecture& architecture, int64_t layer) const {
  quant::NamedTensors all;
  for (size_t b = 0; b < branches.size(); ++b)
    if (branches[b].sinks.defined())
      all.emplace_back(
          architecture.module(layer, architecture.block(layer).branches[b].attention()->sinks),
          branches[b].sinks);
  return all;
}

quant::NamedTensors Block::frozen_state(const Architecture& architecture, int64_t layer) const {
  quant::NamedTensors all;
  visit_norms(architecture.block(layer), *this,
              [&](const NormSpec& spec, const lora::NormWeight& norm) {
                append_norm(architecture.module(layer, spec.names), spec, norm, all);
              });
  for (const auto& [name, sinks] : named_sinks(architecture, layer)) all.emplace_back(name, sinks);
  for (const lora::LinearGroup* group : groups())
    for (const lora::LoraLinear& linear : group->layers()) append_linear(linear, all);
  return all;
}

}  // namespace qlora::model
