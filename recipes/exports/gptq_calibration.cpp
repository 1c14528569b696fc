#include "recipes/exports/gptq_calibration.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "quant/formats/exported_weight.h"
#include "quant/gptq/gptq_pack.h"
#include "quant/make_frozen_weight.h"
#include "recipes/exports/gptq_memory.h"

namespace qlora::recipes {
namespace {

constexpr double kLeastShareOfTokens = 0.005;

// Leaves a run behind the group whose inputs were wanted.
struct SeenEnough {};

int64_t inputs_of(const lora::LinearGroup& group) { return group.layers().front().in_features(); }

at::Tensor float_rows(const quant::FrozenWeight& weight) {
  at::Tensor rows = at::empty({weight.out_features(), weight.in_features()},
                              at::TensorOptions().dtype(at::kFloat).device(weight.device()));
  weight.dequantize_rows(0, 0, weight.out_features(), rows);
  return rows;
}

at::Tensor decoded(const quant::GroupedTensor& weight) {
  at::Tensor rows = at::empty({weight.rows(), weight.in}, at::kFloat);
  quant::dequantize_grouped(weight, 0, weight.rows(), rows);
  return rows;
}

}  // namespace

GptqCalibration::GptqCalibration(model::CausalLm& model, const CalibrationRows& rows,
                                 ActivationStore& activations, const quant::GptqOptions& options,
                                 const quant::QuantizationOptions& skip, Watch watch)
    : model_(model),
      rows_(rows),
      activations_(activations),
      options_(options),
      skip_(skip),
      watch_(std::move(watch)) {
  Progress progress("embedding the calibration rows", rows.facts.sequences, "sequences");
  for (size_t s = 0; s < rows_.sequences.size(); ++s) {
    activations_.of_sequence(s).copy_(model_.first_residual(rows_.sequences[s]));
    progress.advance();
  }
}

std::vector<GptqCalibration::Stage> GptqCalibration::stages_of(const model::BlockSpec& spec,
                                                               model::Block& block) const {
  std::vector<Stage> stages;
  const auto add = [&](Stage stage) {
    if (options_.true_sequential || stages.empty())
      stages.push_back(std::move(stage));
    else
      stages.back().insert(stages.back().end(), stage.begin(), stage.end());
  };
  for (size_t b = 0; b < spec.branches.size(); ++b) {
    model::BranchWeights& weights = block.branches[b];
    if (const model::ExpertsSpec* experts = spec.branches[b].experts()) {
      const double share = static_cast<double>(experts->routing.active) /
                           static_cast<double>(experts->routing.experts);
      Stage gate_up, down;
      for (model::ExpertWeights& expert : weights.experts) {
        gate_up.push_back({&expert.gate_up, share});
        down.push_back({&expert.down, share});
      }
      add(std::move(gate_up));
      add(std::move(down));
    }
    for (lora::LinearGroup* group : {&weights.in, &weights.out})
      if (!group->layers().empty()) add({Part{group, 1}});
  }
  return stages;
}

// In runs whose Hessians lie in memory together.
std::vector<GptqCalibration::Stage> GptqCalibration::runs_of(const Stage& stage) {
  std::vector<Stage> runs;
  int64_t bytes = kMostHessianBytes;
  for (const Part& part : stage) {
    const int64_t inputs = inputs_of(*part.group);
    const int64_t more = inputs * inputs * int64_t{sizeof(float)};
    if (bytes + more > kMostHessianBytes) {
      runs.emplace_back();
      bytes = 0;
    }
    runs.back().push_back(part);
    bytes += more;
  }
  return runs;
}

bool GptqCalibration::is_quantized(const lora::LoraLinear& linear) const {
  return !quant::is_skipped(skip_, linear.name) &&
         std::ranges::find(never_, linear.name) == never_.end();
}

// Adds what each group reads to its Hessian.
void GptqCalibration::run_to(int64_t layer, Hessians& hessians, const Progress& progress) {
  const lora::InputObserver observer = [&](const lora::LinearGroup& group, const at::Tensor& x) {
    const auto hessian = hessians.find(&group);
    if (hessian == hessians.end()) return;
    hessian->second.add(x);
    if (hessians.size() == 1) throw SeenEnough();
  };
  for (size_t s = 0; s < rows_.sequences.size(); ++s) {
    progress.leave_if_stop_wanted();
    model::ForwardInput input = rows_.sequences[s];
    input.observer = &observer;
    try {
      model_.residual_behind(layer, activations_.of_sequence(s).to(model_.device()), input);
    } catch (const SeenEnough&) {
    }
  }
}

void GptqCalibration::run_through(int64_t layer, const Progress& progress) {
  for (size_t s = 0; s < rows_.sequences.size(); ++s) {
    progress.leave_if_stop_wanted();
    const at::Tensor residual = activations_.of_sequence(s);
    residual.copy_(model_.residual_behind(layer, residual.to(model_.device()), rows_.sequences[s]));
  }
}

void GptqCalibration::quantize(lora::LoraLinear& linear, const quant::GptqFactor* factor) {
  const at::Tensor weight = float_rows(*linear.base);
  const quant::GroupedTensor result =
      factor != nullptr ? quant::gptq_quantize(weight, *factor, options_, linear.name)
                        : quant::round_to_nearest(weight, options_, linear.name);
  const at::Tensor values = decoded(result);
  auto exported = std::make_unique<quant::ExportedWeight>(
      quant::gptq_pack(result), result.rows(), result.in,
      fmt::format("gptq, {} bit", options_.bits), [result] { return decoded(result); });
  if (watch_) watch_(linear.name, weight.cpu(), *exported);
  linear.base = std::make_unique<quant::DenseWeight>(
      values.to(model_.device(), model_.compute_dtype()).contiguous());
  exported_[linear.name] = std::move(exported);
}

void GptqCalibration::quantize_group(lora::LinearGroup& group, const quant::GptqHessian& hessian,
                                     double tokens_expected, Progress& progress) {
  const auto tokens = static_cast<double>(hessian.tokens());
  const bool has_inputs = tokens > 0 && tokens >= kLeastShareOfTokens * tokens_expected;
  quant::GptqFactor factor;
  if (has_inputs)
    factor = quant::gptq_factor(hessian.matrix(), options_, group.layers().front().name);
  for (lora::LoraLinear& linear : group.layers()) {
    if (is_quantized(linear)) {
      quantize(linear, has_inputs ? &factor : nullptr);
      num_without_inputs_ += has_inputs ? 0 : 1;
    }
    progress.advance();
  }
}

void GptqCalibration::quantize_stage(int64_t layer, const Stage& stage, Progress& progress) {
  const auto tokens = static_cast<double>(rows_.facts.tokens);
  Stage wanted;
  for (const Part& part : stage) {
    const std::vector<lora::LoraLinear>& layers = part.group->layers();
    const bool any = std::ranges::any_of(
        layers, [this](const lora::LoraLinear& linear) { return is_quantized(linear); });
    if (any)
      wanted.push_back(part);
    else
      progress.advance(static_cast<int64_t>(layers.size()));
  }
  for (const Stage& run : runs_of(wanted)) {
    Hessians hessians;
    for (const Part& part : run)
      hessians.emplace(part.group, quant::GptqHessian(inputs_of(*part.group)));
    run_to(layer, hessians, progress);
    for (const Part& part : run) {
      const auto hessian = hessians.find(part.group);
      quantize_group(*part.group, hessian->second, part.share_of_tokens * tokens, progress);
      hessians.erase(hessian);
    }
  }
}

void GptqCalibration::quantize_block(int64_t layer, model::Block& given, Progress& progress) {
  at::NoGradGuard no_grad;
  const model::Architecture& architecture = model_.architecture();
  never_.clear();
  architecture.block(layer).for_each_linear([&](const model::LinearSpec& linear) {
    if (linear.never_quantized) never_.push_back(architecture.module(layer, linear.names));
  });
  model::Block& block = model_.layers.at(static_cast<size_t>(layer));
  block = std::move(given);
  const std::vector<Stage> stages = stages_of(architecture.block(layer), block);
  progress.advance(static_cast<int64_t>(never_.size()));
  for (const Stage& stage : stages) quantize_stage(layer, stage, progress);
  if (layer + 1 < architecture.num_layers()) run_through(layer, progress);
  for (lora::LinearGroup* group : block.groups())
    for (lora::LoraLinear& linear : group->layers())
      if (const auto exported = exported_.find(linear.name); exported != exported_.end())
        linear.base = std::move(exported->second);
  exported_.clear();
  given = std::move(block);
  block = model::Block();
}

}  // namespace qlora::recipes
