// Where the trained tensors lie in the flat buffers of AdapterSet: group by group, all A of a group
// next to each other; then what lies beside the linear layers.
#include <ATen/ATen.h>

#include "base/seed.h"
#include "lora/attach.h"
#include "lora/dora_norms.h"
#include "lora/initial_factors.h"

namespace qlora::lora {
namespace {

std::string file_name(const std::string& module, const char* suffix) {
  return "base_model.model." + module + suffix;
}

constexpr const char* kRowsSuffix = ".token_adapter.trainable_tokens_delta";

// The masters of rows of an embedding start as the frozen rows.
void start_rows(TrainedRows& trained, const at::Tensor& frozen) {
  const at::Tensor ids = at::tensor(trained.ids, at::kLong);
  trained.index = ids.to(trained.rows.value.device());
  trained.rows.value.copy_(frozen.index_select(0, ids.to(frozen.device())));
}

}  // namespace

TrainedTensor AdapterSet::take(at::IntArrayRef shape) {
  const int64_t numbers = c10::multiply_integers(shape);
  TrainedTensor taken{values_.narrow(0, placed_, numbers).view(shape),
                      gradients_.narrow(0, placed_, numbers).view(shape), next_compute(shape)};
  placed_ += numbers;
  return taken;
}

at::Tensor AdapterSet::next_compute(at::IntArrayRef shape) const {
  const int64_t numbers = c10::multiply_integers(shape);
  if (fp32_products_) return values_.narrow(0, placed_, numbers).view(shape);
  if (placed_ + numbers > compute_values_.numel()) return {};
  return compute_values_.narrow(0, placed_, numbers).view(shape);
}

void AdapterSet::list(const std::string& name, const TrainedTensor& trained) {
  tensors_.push_back({name, trained.value, trained.gradient});
}

void AdapterSet::list_rows(const std::vector<std::string>& names, const TrainedTensor& trained) {
  for (size_t i = 0; i < names.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    tensors_.push_back({file_name(names[i], ""), trained.value[row], trained.gradient[row]});
  }
}

void AdapterSet::place(const LoraOptions& options, LinearGroup& group, uint64_t seed,
                       const GivenFactors& given) {
  place_factors(options, group, seed, given);
  for (LoraLinear& layer : group.layers()) {
    if (layer.trained_bias) place_bias(layer);
    if (layer.trained_weight) place_trained_weight(layer);
    if (TrainedRows* trained = layer.trained_rows.get()) {
      trained->rows = take({static_cast<int64_t>(trained->ids.size()), layer.in_features()});
      at::Tensor frozen = at::empty({layer.out_features(), layer.in_features()}, values_.options());
      layer.base->dequantize_rows(0, 0, layer.out_features(), frozen);
      start_rows(*trained, frozen);
      // Shared rows are listed, and saved, as the embedding's.
      if (!embeddings_.shared) list(file_name(layer.name, kRowsSuffix), trained->rows);
    }
    const TrainedTensor* trained = layer.trained_bias     ? layer.trained_bias.get()
                                   : layer.trained_weight ? layer.trained_weight.get()
                                   : layer.trained_rows   ? &layer.trained_rows->rows
                                                          : nullptr;
    if (trained != nullptr && !group.anchor().defined()) group.set_anchor(anchor_of(*trained));
  }
}

void AdapterSet::place_factors(const LoraOptions& options, LinearGroup& group, uint64_t seed,
                               const GivenFactors& given) {
  const int64_t in = group.layers().front().in_features();
  int64_t stacked_rank = 0;
  for (const LoraLinear& layer : group.layers())
    if (layer.adapter) stacked_rank += layer.adapter->rank;
  if (stacked_rank == 0) return;
  const int64_t first = placed_;
  std::vector<at::Tensor> initial_b;
  group.set_stacked_a({next_compute({stacked_rank, in}),
                       gradients_.narrow(0, first, stacked_rank * in).view({stacked_rank, in})});
  for (LoraLinear& layer : group.layers()) {  // all A first: they lie next to each other
    if (!layer.adapter) continue;
    Adapter& adapter = *layer.adapter;
    adapter.scaling = options.of_module(layer.name).scaling();
    adapter.dropout = options.dropout;
    adapter.dropout_key = random_key(seed, layer.name + ".dropout");
    const TrainedTensor a = take({adapter.rank, in});
    adapter.a = a.value;
    adapter.grad_a = a.gradient;
    adapter.a_compute = a.compute;
    const auto found = given.find(layer.name);
    const Factors start =
        found != given.end() ? found->second
                             : initial_factors(options.init, adapter.rank, in, layer.out_features(),
                                               random_key(seed, layer.name + ".lora_A"),
                                               random_key(seed, layer.name + ".lora_B"));
    adapter.a.copy_(start.a);
    initial_b.push_back(start.b);
  }
  size_t next = 0;
  for (LoraLinear& layer : group.layers()) {
    if (!layer.adapter) continue;
    Adapter& adapter = *layer.adapter;
    const TrainedTensor b = take({layer.out_features(), adapter.rank});
    adapter.b = b.value;
    adapter.grad_b = b.gradient;
    adapter.b_compute = b.compute;
    adapter.b.copy_(initial_b[next++]);
    tensors_.push_back({file_name(layer.name, ".lora_A.weight"), adapter.a, adapter.grad_a});
    tensors_.push_back({.name = file_name(layer.name, ".lora_B.weight"),
                        .value = adapter.b,
                        .gradient = adapter.grad_b,
                        .in_turn = layer.rows_in_turn});
    if (layer.name == names_.head)
      frozen_beside_.emplace_back(file_name(layer.name, ".base_layer.weight"), layer.base.get());
    if (options.use_dora) place_magnitude(layer);
    if (!group.anchor().defined()) group.set_anchor(adapter.a.detach().requires_grad_(true));
  }
}

void AdapterSet::place_bias(LoraLinear& layer) {
  TrainedTensor& trained = *layer.trained_bias;
  trained = take({layer.out_features()});
  trained.value.copy_(layer.bias);
  trained.compute = layer.bias.clone();
  layers_with_bias_.push_back(&layer);
  list(file_name(layer.name, layer.adapter ? ".base_layer.bias" : ".bias"), trained);
}

void AdapterSet::place_magnitude(LoraLinear& layer) {
  Adapter& adapter = *layer.adapter;
  const TrainedTensor magnitude = take({layer.out_features()});
  adapter.magnitude = magnitude.value;
  adapter.grad_magnitude = magnitude.gradient;
  adapter.base_squares = at::empty_like(adapter.magnitude);
  adapter.norm = at::empty_like(adapter.magnitude);
  adapter.factor = at::ones_like(adapter.magnitude);
  measure_base(layer);
  dora_layers_.push_back(&layer);
  list(file_name(layer.name, ".lora_magnitude_vector"), magnitude);
}

void AdapterSet::place_trained_weight(LoraLinear& layer) {
  TrainedTensor& trained = *layer.trained_weight;
  trained = take({layer.out_features(), layer.in_features()});
  layer.base->dequantize_rows(0, 0, layer.out_features(), trained.value);
  const std::string name = file_name(layer.name, ".weight");
  if (embeddings_.shared && layer.name == names_.head)
    copies_.emplace_back(name, file_name(names_.embedding, ".weight"));
  else
    tensors_.push_back({name, trained.value, trained.gradient, layer.stored_by_inputs});
}

int64_t AdapterSet::count_beside_layers(const TrainableParts& parts) const {
  if (parts.embedding == nullptr || embeddings_.shared) return 0;
  if (embeddings_.whole_embedding) return parts.embedding->weight.numel();
  return static_cast<int64_t>(embeddings_.embedding_ids.size()) * parts.embedding->weight.size(1);
}

void AdapterSet::place_embedding(const TrainableParts& parts) {
  if (parts.embedding == nullptr) return;
  Embedding& embedding = *parts.embedding;
  if (embeddings_.whole_embedding) {
    embedding.trained = std::make_unique<TrainedTensor>();
    if (embeddings_.shared) {
      *embedding.trained = *parts.head->layers().front().trained_weight;
    } else {
      *embedding.trained = take(embedding.weight.sizes());
      embedding.trained->value.copy_(embedding.weight);
    }
    list(file_name(names_.embedding, ".weight"), *embedding.trained);
  }
  if (embeddings_.embedding_ids.empty()) return;
  embedding.rows = std::make_unique<TrainedRows>();
  if (embeddings_.shared) {
    *embedding.rows = *parts.head->layers().front().trained_rows;
  } else {
    embedding.rows->ids = embeddings_.embedding_ids;
    embedding.rows->rows =
        take({static_cast<int64_t>(embeddings_.embedding_ids.size()), embedding.weight.size(1)});
    start_rows(*embedding.rows, embedding.weight);
  }
  list(file_name(names_.embedding, kRowsSuffix), embedding.rows->rows);
}

void AdapterSet::place_norms(const LoraOptions& options, const TrainableParts& parts) {
  for (const auto& [name, norm] : parts.norms) {
    const auto train = [&](const at::Tensor& frozen) {
      auto trained = std::make_unique<TrainedTensor>(take(frozen.sizes()));
      trained->value.copy_(frozen);
      return trained;
    };
    if (trains_norm_weight(options, name, *norm)) {
      norm->trained = train(norm->frozen);
      if (norm->row_names.empty()) list(file_name(name, ".weight"), *norm->trained);
      list_rows(norm->row_names, *norm->trained);
    }
    if (trains_norm_bias(options, name, *norm)) {
      norm->trained_bias = train(norm->frozen_bias);
      list(file_name(name, ".bias"), *norm->trained_bias);
    }
  }
}

}  // namespace qlora::lora
