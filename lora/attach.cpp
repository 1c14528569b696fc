#include "lora/attach.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/profile.h"
#include "base/seed.h"
#include "lora/initial_factors.h"

namespace qlora::lora {
namespace {

std::vector<std::string> module_names(const std::vector<LinearGroup*>& groups) {
  std::vector<std::string> names;
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers()) names.push_back(layer.name);
  return names;
}

std::vector<std::string> peft_targets(const std::vector<LinearGroup*>& groups) {
  const auto last_name = [](const std::string& path) { return path.substr(path.rfind('.') + 1); };
  std::set<std::string> partly, targets;
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers())
      if (!layer.adapter) partly.insert(last_name(layer.name));
  for (const LinearGroup* group : groups)
    for (const LoraLinear& layer : group->layers()) {
      if (!layer.adapter) continue;
      const std::string last = last_name(layer.name);
      targets.insert(partly.contains(last) ? layer.name : last);
    }
  return {targets.begin(), targets.end()};
}

constexpr int64_t kPanelElements = 1 << 22;

// Calls visit(first row, rows in fp32) for all rows of a weight.
template <typename Visit>
void for_each_row_panel(const quant::FrozenWeight& weight, const Visit& visit) {
  const int64_t out = weight.out_features(), in = weight.in_features();
  const int64_t rows = std::clamp<int64_t>(kPanelElements / in, 1, out);
  const at::Tensor buffer =
      at::empty({rows, in}, at::TensorOptions().dtype(at::kFloat).device(weight.device()));
  for (int64_t begin = 0; begin < out; begin += rows) {
    const int64_t end = std::min(out, begin + rows);
    at::Tensor panel = buffer.narrow(0, 0, end - begin);
    weight.dequantize_rows(0, begin, end, panel);
    visit(begin, panel);
  }
}

// |W + s B A|² = |W|² + 2 s (W Aᵀ)·B + s² B (A Aᵀ)·B, row by row: one thin product with the frozen
// weight instead of a sum of its size.
void update_norm(LoraLinear& layer) {
  Adapter& adapter = *layer.adapter;
  const at::Tensor& b = adapter.b;
  const double s = adapter.scaling;
  at::Tensor squares = adapter.base_squares.clone();
  for_each_row_panel(*layer.base, [&](int64_t begin, const at::Tensor& rows) {
    const at::Tensor cross = at::mm(rows, adapter.a.t());
    squares.narrow(0, begin, rows.size(0))
        .add_((cross * b.narrow(0, begin, rows.size(0))).sum(1), 2 * s);
  });
  squares.add_((at::mm(b, at::mm(adapter.a, adapter.a.t())) * b).sum(1), s * s);
  // A row of zeros would divide by zero.
  adapter.norm.copy_(squares.clamp_min_(1e-30).sqrt_());
  at::div_out(adapter.factor, adapter.magnitude, adapter.norm);
}

}  // namespace

AdapterSet::AdapterSet(const LoraOptions& options, std::vector<LinearGroup*> groups,
                       at::ScalarType compute, uint64_t seed, const GivenFactors& given) {
  at::NoGradGuard no_grad;
  Targets targets = match_targets(options, module_names(groups));
  std::vector<int64_t> sizes;  // of each module's adapter, taken or not
  int64_t total = 0;
  for (LinearGroup* group : groups)
    for (LoraLinear& layer : group->layers()) {
      const bool chosen = targets.chosen[sizes.size()];
      const int64_t rank = options.of_module(layer.name).rank;
      sizes.push_back(rank * (layer.in_features() + layer.out_features()) +
                      (options.use_dora ? layer.out_features() : 0));
      if (layer.bias.defined() &&
          (options.bias == "all" || (options.bias == "lora_only" && chosen))) {
        layer.trained_bias = std::make_unique<TrainedBias>();
        total += layer.out_features();
      }
      if (!chosen) continue;
      layer.adapter = std::make_unique<Adapter>();
      layer.adapter->rank = rank;
      total += sizes.back();
      ++num_modules_;
    }
  for (TargetMatch& match : targets.matches)
    for (const size_t index : match.indices) match.parameters += sizes[index];
  target_modules_ = peft_targets(groups);
  matches_ = std::move(targets.matches);

  const auto device = groups.front()->layers().front().base->device();
  values_ = at::zeros({total}, at::TensorOptions().dtype(at::kFloat).device(device));
  gradients_ = at::zeros_like(values_);
  compute_values_ = compute == at::kFloat ? values_ : at::zeros_like(values_, compute);
  int64_t offset = 0;
  for (LinearGroup* group : groups) place(options, *group, seed, given, offset);
  check(offset == total, "AdapterSet: {} numbers placed of {}", offset, total);
  publish();
  for (LoraLinear* layer : dora_layers_) {
    layer->adapter->magnitude.copy_(layer->adapter->norm);
    layer->adapter->factor.fill_(1);
  }
}

void AdapterSet::place(const LoraOptions& options, LinearGroup& group, uint64_t seed,
                       const GivenFactors& given, int64_t& offset) {
  const int64_t in = group.layers().front().in_features();
  const int64_t first = offset;
  int64_t stacked_rank = 0;
  std::vector<at::Tensor> initial_b;
  const auto view = [&](const at::Tensor& flat, int64_t rows, int64_t columns) {
    return flat.narrow(0, offset, rows * columns).view({rows, columns});
  };
  for (LoraLinear& layer : group.layers()) {  // all A first: they lie next to each other
    if (!layer.adapter) continue;
    Adapter& adapter = *layer.adapter;
    adapter.scaling = options.of_module(layer.name).scaling();
    adapter.dropout = options.dropout;
    adapter.dropout_key = random_key(seed, layer.name + ".dropout");
    adapter.a = view(values_, adapter.rank, in);
    adapter.grad_a = view(gradients_, adapter.rank, in);
    adapter.a_compute = view(compute_values_, adapter.rank, in);
    const auto found = given.find(layer.name);
    const Factors start =
        found != given.end() ? found->second
                             : initial_factors(options.init, adapter.rank, in, layer.out_features(),
                                               random_key(seed, layer.name + ".lora_A"),
                                               random_key(seed, layer.name + ".lora_B"));
    adapter.a.copy_(start.a);
    initial_b.push_back(start.b);
    offset += adapter.rank * in;
    stacked_rank += adapter.rank;
  }
  if (stacked_rank == 0) {
    for (LoraLinear& layer : group.layers())
      if (layer.trained_bias) {
        place_bias(layer, offset);
        group.set_anchor(layer.trained_bias->value.detach().requires_grad_(true));
      }
    return;
  }
  group.set_stacked_a({compute_values_.narrow(0, first, stacked_rank * in).view({stacked_rank, in}),
                       gradients_.narrow(0, first, stacked_rank * in).view({stacked_rank, in})});
  size_t placed = 0;
  for (LoraLinear& layer : group.layers()) {
    if (layer.trained_bias) place_bias(layer, offset);
    if (!layer.adapter) continue;
    Adapter& adapter = *layer.adapter;
    const int64_t out = layer.out_features();
    adapter.b = view(values_, out, adapter.rank);
    adapter.b.copy_(initial_b[placed++]);
    adapter.grad_b = view(gradients_, out, adapter.rank);
    adapter.b_compute = view(compute_values_, out, adapter.rank);
    offset += out * adapter.rank;
    const std::string prefix = "base_model.model." + layer.name;
    tensors_.push_back({prefix + ".lora_A.weight", adapter.a, adapter.grad_a});
    tensors_.push_back({prefix + ".lora_B.weight", adapter.b, adapter.grad_b});
    if (options.use_dora) place_magnitude(layer, offset);
    if (!group.anchor().defined()) group.set_anchor(adapter.a.detach().requires_grad_(true));
  }
}

void AdapterSet::place_bias(LoraLinear& layer, int64_t& offset) {
  const int64_t out = layer.out_features();
  layer.trained_bias->value = values_.narrow(0, offset, out);
  layer.trained_bias->value.copy_(layer.bias);
  layer.trained_bias->gradient = gradients_.narrow(0, offset, out);
  // Its own copy in the compute dtype; the model's tensor stays as it was read.
  layer.bias = layer.bias.clone();
  layers_with_bias_.push_back(&layer);
  tensors_.push_back(
      {"base_model.model." + layer.name + (layer.adapter ? ".base_layer" : "") + ".bias",
       layer.trained_bias->value, layer.trained_bias->gradient});
  offset += out;
}

void AdapterSet::place_magnitude(LoraLinear& layer, int64_t& offset) {
  const int64_t out = layer.out_features();
  Adapter& adapter = *layer.adapter;
  adapter.magnitude = values_.narrow(0, offset, out);
  adapter.grad_magnitude = gradients_.narrow(0, offset, out);
  adapter.base_squares = at::empty_like(adapter.magnitude);
  adapter.norm = at::empty_like(adapter.magnitude);
  adapter.factor = at::ones_like(adapter.magnitude);
  for_each_row_panel(*layer.base, [&](int64_t begin, const at::Tensor& rows) {
    adapter.base_squares.narrow(0, begin, rows.size(0)).copy_(rows.square().sum(1));
  });
  dora_layers_.push_back(&layer);
  tensors_.push_back({"base_model.model." + layer.name + ".lora_magnitude_vector",
                      adapter.magnitude, adapter.grad_magnitude});
  offset += out;
}

void AdapterSet::publish() {
  const ProfileScope scope("publish");
  at::NoGradGuard no_grad;
  if (compute_values_.data_ptr() != values_.data_ptr()) compute_values_.copy_(values_);
  for (LoraLinear* layer : layers_with_bias_) layer->bias.copy_(layer->trained_bias->value);
  for (LoraLinear* layer : dora_layers_) update_norm(*layer);
}

}  // namespace qlora::lora
