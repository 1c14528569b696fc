#include "export/merged_tensors.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "lora/expert_names.h"

namespace qlora::exporting {
namespace {

at::Tensor dequantized(const quant::FrozenWeight& weight, const std::string& name) {
  if (weight.num_experts() != 1) {
    fail<ConfigError>("{} holds {} experts ({}), which this version does not merge", name,
                      weight.num_experts(), weight.format());
  }
  at::Tensor dense = at::empty({weight.out_features(), weight.in_features()},
                               at::TensorOptions().dtype(at::kFloat).device(weight.device()));
  weight.dequantize_rows(0, 0, weight.out_features(), dense);
  return dense;
}

// A row of zeros would divide by zero.
at::Tensor row_norms(const at::Tensor& weight) {
  return at::linalg_vector_norm(weight, 2, at::IntArrayRef{1}).clamp_min_(1e-15);
}

// The low-rank product, scaled by DoRA where it is.
void add_adapter(const lora::Adapter& adapter, bool other_base, at::Tensor& weight) {
  weight.addmm_(adapter.b, adapter.a, 1.0, adapter.scaling);
  if (!adapter.is_dora()) return;
  const at::Tensor factor = other_base ? adapter.magnitude / row_norms(weight) : adapter.factor;
  weight.mul_(factor.unsqueeze(1));
}

// Where `original` has the weight of a linear layer: a tied head lies there as the embedding alone.
std::string name_in(const model::WeightSource& original, const std::string& name) {
  const model::Architecture& a = original.architecture();
  const bool tied_head = a.tied_embeddings && name == a.head.names.hugging_face + ".weight";
  return tied_head ? a.embedding.names.hugging_face + ".weight" : name;
}

}  // namespace

at::Tensor merged_weight(const lora::LoraLinear& linear, model::WeightSource* original) {
  if (linear.trained_weight) return linear.trained_weight->value;
  const std::string name = linear.name + ".weight";
  at::Tensor weight = original
                          ? original
                                ->read(name_in(*original, name),
                                       {linear.out_features(), linear.in_features()}, at::kFloat)
                                .to(linear.base->device())
                          : dequantized(*linear.base, name);
  if (const lora::TrainedRows* trained = linear.trained_rows.get())
    weight.index_copy_(0, trained->index, trained->rows.value);
  if (linear.adapter) add_adapter(*linear.adapter, original != nullptr, weight);
  return weight;
}

void MergedTensors::add_trained(const std::string& name, const at::Tensor& value) {
  add(name, value.sizes().vec(), [value] { return value; });
}

void MergedTensors::add_frozen(const std::string& name, const at::Tensor& value) {
  add(name, value.sizes().vec(), [original = original_, name, value, dtype = dtype_] {
    if (!original) return value;
    return original->read(name, value.sizes().vec(), original->dtype_of(name, dtype));
  });
}

void MergedTensors::visit_embedding(const std::string& name, const lora::Embedding& embedding) {
  if (embedding.trained) return add_trained(name, embedding.trained->value);
  if (!embedding.rows) return add_frozen(name, embedding.weight);
  add(name, embedding.weight.sizes().vec(), [name, &embedding, original = original_] {
    const at::Tensor weight = original
                                  ? original->read(name, embedding.weight.sizes().vec(), at::kFloat)
                                  : embedding.weight;
    return weight.to(embedding.rows_device(), at::kFloat)
        .index_copy(0, embedding.rows->index, embedding.rows->rows.value);
  });
}

void MergedTensors::visit_norm(const std::string& module, const model::NormSpec& spec,
                               const lora::NormWeight& norm) {
  const std::string weight = module + ".weight";
  if (spec.by_group)
    add_groups(module, spec, norm);
  else if (norm.frozen.defined())
    norm.trained ? add_trained(weight, norm.trained->value) : add_frozen(weight, norm.frozen);
  add_bias(module + ".bias", norm.frozen_bias, norm.trained_bias.get());
}

void MergedTensors::visit_linear(const lora::LoraLinear& linear) {
  add(linear.name + ".weight", {linear.out_features(), linear.in_features()},
      [&linear, original = original_] { return merged_weight(linear, original); });
  visit_bias(linear);
}

void MergedTensors::visit_bias(const lora::LoraLinear& linear) {
  add_bias(linear.name + ".bias", linear.bias, linear.trained_bias.get());
}

void MergedTensors::add_bias(const std::string& name, const at::Tensor& frozen,
                             const lora::TrainedTensor* trained) {
  if (trained) add_trained(name, trained->value);
  // The zeros of a bias that the model has and no file does.
  else if (frozen.defined() && original_ && !original_->has(name))
    add_trained(name, frozen);
  else if (frozen.defined())
    add_frozen(name, frozen);
}

void MergedTensors::visit_group(const lora::LinearGroup& group) {
  for (const lora::LoraLinear& layer : group.layers()) visit_linear(layer);
}

void MergedTensors::visit_layer(const model::CausalLm& model, int64_t index) {
  const model::Architecture& a = model.architecture();
  const model::Block& layer = model.layers[static_cast<size_t>(index)];
  visit_norms(a.block(index), layer,
              [&](const model::NormSpec& spec, const lora::NormWeight& norm) {
                visit_norm(a.module(index, spec.names), spec, norm);
              });
  for (const auto& [name, sinks] : layer.named_sinks(a, index)) add_frozen(name, sinks);
  const auto& branches = a.block(index).branches;
  for (size_t b = 0; b < branches.size(); ++b) {
    if (const model::ExpertsSpec* experts = branches[b].experts())
      add_experts(index, *experts, layer.branches[b].experts);
    for (const lora::LinearGroup* group : layer.branches[b].groups())
      if (!lora::expert_name(group->layers().front().name)) visit_group(*group);
  }
}

void MergedTensors::visit(const model::CausalLm& model) {
  const model::Architecture& a = model.architecture();
  const model::EmbeddingSpec& first = a.embedding;
  visit_embedding(first.names.hugging_face + ".weight", model.embedding);
  if (first.positions.present())
    add_frozen(first.positions.names.hugging_face + ".weight", model.positions);
  visit_norm(first.norm.names.hugging_face, first.norm, model.embedding_norm);
  visit_group(model.projection);
  for (int64_t i = 0; i < static_cast<int64_t>(model.layers.size()); ++i) visit_layer(model, i);
  visit_group(model.head_projection);
  for (const auto& [name, table] : model.relative_tables()) add_frozen(name, table);
  const model::NormSpec &encoded = a.encoder.final_norm, &last = a.decoder.final_norm;
  visit_norm(encoded.names.hugging_face, encoded, model.encoder_norm);
  visit_norm(last.names.hugging_face, last, model.final_norm);
  const lora::LoraLinear& head = model.head.layers().front();
  model.embeddings_still_tied() ? visit_bias(head) : visit_linear(head);
}

}  // namespace qlora::exporting
