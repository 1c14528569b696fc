#include "lora/attach.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <set>

#include "base/error.h"
#include "base/profile.h"
#include "lora/dora_norms.h"
#include "lora/expert_names.h"
#include "lora/module_path.h"

namespace qlora::lora {
namespace {

std::vector<std::string> module_names(const std::vector<LinearGroup*>& groups) {
  std::vector<std::string> names;
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers()) names.push_back(layer.name);
  return names;
}

// PEFT's target_parameters, or else its target_modules.
std::vector<std::string> peft_targets(const std::vector<LinearGroup*>& groups,
                                      bool names_are_shared, bool parameters) {
  const auto target_of = [](const std::string& name) {
    const std::string last = last_name(name);
    return is_parameter(name) && !expert_name(name) ? last + ".weight" : last;
  };
  const auto path = [parameters](const std::string& name) {
    return parameters ? parameter_path(name) : name;
  };
  std::set<std::string> partly, targets;
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers())
      if (!layer.adapter && is_parameter(layer.name) == parameters)
        partly.insert(target_of(layer.name));
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers()) {
      if (!layer.adapter || is_parameter(layer.name) != parameters) continue;
      const std::string last = target_of(layer.name);
      targets.insert(names_are_shared || partly.contains(last) ? path(layer.name) : last);
    }
  return {targets.begin(), targets.end()};
}

void check_names(const LoraOptions& options, const TrainableParts& parts,
                 const std::vector<std::string>& linear) {
  if (options.modules_to_save.empty()) return;
  std::vector<std::string> others;
  if (parts.embedding != nullptr) others.push_back(parts.names.embedding);
  for (const auto& [name, norm] : parts.norms) others.push_back(name);
  check_whole_modules(options, linear, others);
}

// What PEFT's adapters of parameters cannot be.
void require_plain_adapter(const LoraOptions& options, const std::string& module, bool chosen,
                           bool whole) {
  if (whole)
    fail<ConfigError>(
        "lora.modules_to_save: {} is an expert or a router, which is not trained "
        "whole by this version",
        module);
  if (chosen && (options.use_dora || options.dropout > 0))
    fail<ConfigError>(
        "{}: adapters of experts and routers ({}) have {}, as in PEFT; leave them out of "
        "lora.target_parameters (for Mixtral, Qwen3-MoE and OLMoE all-linear has them in it: name "
        "the modules of attention in lora.targets), or set it to {}",
        options.use_dora ? "lora.use_dora" : "lora.dropout", module,
        options.use_dora ? "no magnitude" : "no dropout", options.use_dora ? "false" : "0");
}

}  // namespace

void check_parameters(const LoraOptions& options, const std::vector<std::string>& names) {
  for (const std::string& name : names)
    if (is_parameter(name))
      require_plain_adapter(options, name, is_target(options, name),
                            is_trained_whole(options, name));
}

namespace {

// Numbers that the filled slots of a layer take.
int64_t numbers_of(const LoraLinear& layer, bool use_dora) {
  const int64_t in = layer.in_features(), out = layer.out_features();
  int64_t numbers = 0;
  if (layer.adapter) numbers += layer.adapter->rank * (in + out) + (use_dora ? out : 0);
  if (layer.trained_bias) numbers += out;
  if (layer.trained_weight) numbers += in * out;
  if (layer.trained_rows) numbers += static_cast<int64_t>(layer.trained_rows->ids.size()) * in;
  return numbers;
}

// The model's slots, emptied again unless attaching came to its end.
class SlotsInTheFilling {
 public:
  explicit SlotsInTheFilling(const TrainableParts& parts) : parts_(parts) { empty_slots(parts_); }
  ~SlotsInTheFilling() {
    if (!filled_) empty_slots(parts_);
  }
  SlotsInTheFilling(const SlotsInTheFilling&) = delete;
  SlotsInTheFilling& operator=(const SlotsInTheFilling&) = delete;
  void keep() { filled_ = true; }

 private:
  const TrainableParts& parts_;
  bool filled_ = false;
};

// The weights to which adapters are fitted; gives the device of the first one.
at::Device require_weights(const TrainableParts& parts) {
  const LoraLinear* first = nullptr;
  for (const LinearGroup* group : parts.all_groups())
    for (const LoraLinear& layer : group->layers()) {
      check(layer.base != nullptr, "AdapterSet: {} must have its frozen weight, and has none yet",
            layer.name);
      const LoraLinear& beside = group->layers().front();
      check(layer.in_features() == beside.in_features(),
            "AdapterSet: layers of one group must have one input; {} has {} features, {} has {}",
            beside.name, beside.in_features(), layer.name, layer.in_features());
      if (first == nullptr) first = &layer;
    }
  check(first != nullptr, "AdapterSet: the model must have a linear layer, and has none");
  return first->base->device();
}

}  // namespace

void empty_slots(const TrainableParts& parts) {
  for (LinearGroup* group : parts.all_groups()) {
    for (LoraLinear& layer : group->layers()) {
      layer.adapter.reset();
      layer.trained_bias.reset();
      layer.trained_weight.reset();
      layer.trained_rows.reset();
    }
    group->set_stacked_a({});
    group->set_anchor({});
  }
  if (parts.embedding != nullptr) {
    parts.embedding->trained.reset();
    parts.embedding->rows.reset();
  }
  for (const auto& [name, norm] : parts.norms) {
    norm->trained.reset();
    norm->trained_bias.reset();
  }
}

int64_t AdapterSet::fill_slots(const LoraOptions& options, const TrainableParts& parts) {
  const std::vector<LinearGroup*> groups = parts.all_groups();
  const std::vector<std::string> names = module_names(groups);
  check_names(options, parts, names);
  Targets targets = match_targets(options, names);
  std::vector<int64_t> sizes;  // of each module's adapter, taken or not
  int64_t total = 0;
  for (LinearGroup* group : groups)
    for (LoraLinear& layer : group->layers()) {
      const bool chosen = targets.chosen[sizes.size()];
      const int64_t rank = options.of_module(layer.name).rank;
      sizes.push_back(rank * (layer.in_features() + layer.out_features()) +
                      (options.use_dora ? layer.out_features() : 0));
      const bool whole =
          group == parts.head ? embeddings_.whole_head : is_trained_whole(options, layer.name);
      if (is_parameter(layer.name)) require_plain_adapter(options, layer.name, chosen, whole);
      if (whole) layer.trained_weight = std::make_unique<TrainedTensor>();
      // PEFT's copy of a module has the module's bias in it.
      if (layer.bias.defined() && !is_parameter(layer.name) &&
          (whole || options.bias == "all" || (options.bias == "lora_only" && chosen)))
        layer.trained_bias = std::make_unique<TrainedTensor>();
      if (group == parts.head && !embeddings_.head_ids.empty()) {
        layer.trained_rows = std::make_unique<TrainedRows>();
        layer.trained_rows->ids = embeddings_.head_ids;
      }
      if (chosen) {
        layer.adapter = std::make_unique<Adapter>();
        layer.adapter->rank = rank;
        ++num_modules_;
        fan_in_fan_out_ |= layer.stored_by_inputs;
      }
      total += numbers_of(layer, options.use_dora);
    }
  for (TargetMatch& match : targets.matches)
    for (const size_t index : match.indices) match.parameters += sizes[index];
  target_modules_ = peft_targets(groups, parts.names_are_shared, false);
  target_parameters_ = peft_targets(groups, parts.names_are_shared, true);
  matches_ = std::move(targets.matches);
  return total;
}

AdapterSet::AdapterSet(const LoraOptions& options, const TrainableParts& parts,
                       at::ScalarType compute, uint64_t seed, const GivenFactors& given)
    : names_(parts.names), bfloat16_(options.dtype == "bfloat16"), has_encoder_(parts.has_encoder) {
  at::NoGradGuard no_grad;
  SlotsInTheFilling slots(parts);
  const at::Device device = require_weights(parts);
  if (parts.embedding != nullptr)
    embeddings_ =
        trained_embeddings(options, parts.tied, parts.embedding->weight.size(0), parts.names);
  const int64_t in_layers = fill_slots(options, parts);
  const bool adapter_on_head = parts.head != nullptr && parts.head->layers().front().adapter;
  if (adapter_on_head) check_adapted_head(options, embeddings_, parts.tied, parts.names);
  int64_t total = in_layers + count_beside_layers(parts);
  for (const auto& [name, norm] : parts.norms) {
    if (trains_norm_weight(options, name, *norm)) total += norm->frozen.numel();
    if (trains_norm_bias(options, name, *norm)) total += norm->frozen_bias.numel();
  }

  values_ = at::zeros({total}, at::TensorOptions().dtype(at::kFloat).device(device));
  gradients_ = at::zeros_like(values_);
  compute_values_ =
      compute == at::kFloat ? values_ : at::zeros({in_layers}, values_.options().dtype(compute));
  for (LinearGroup* group : parts.all_groups()) {
    fp32_products_ = group == parts.head && parts.fp32_head;
    place(options, *group, seed, given);
  }
  check(placed_ == in_layers, "AdapterSet: {} numbers placed of {}", placed_, in_layers);
  place_embedding(parts);
  place_norms(options, parts);
  check(placed_ == total, "AdapterSet: {} numbers placed of {}", placed_, total);
  round_to_dtype();
  publish();
  for (LoraLinear* layer : dora_layers_) {
    layer->adapter->magnitude.copy_(layer->adapter->norm);
    layer->adapter->factor.fill_(1);
  }
  if (!dora_layers_.empty() && bfloat16_) {
    round_to_dtype();
    publish();
  }
  slots.keep();
}

void AdapterSet::publish() {
  const ProfileScope scope("publish");
  at::NoGradGuard no_grad;
  if (compute_values_.data_ptr() != values_.data_ptr())
    compute_values_.copy_(values_.narrow(0, 0, compute_values_.numel()));
  for (LoraLinear* layer : layers_with_bias_)
    layer->trained_bias->compute.copy_(layer->trained_bias->value);
  for (LoraLinear* layer : dora_layers_) update_norm(*layer);
}

void AdapterSet::round_to_dtype() {
  at::NoGradGuard no_grad;
  if (bfloat16_) values_.copy_(values_.to(at::kBFloat16));
}

}  // namespace qlora::lora
