#include "export/merged.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "export/config_file.h"
#include "export/tokenizer_directory.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"
#include "lora/expert_names.h"
#include "model/expert_tensors.h"
#include "model/file_layout.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

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

at::Tensor merged_weight(const lora::LoraLinear& linear, model::WeightSource* original) {
  if (linear.trained_weight) return linear.trained_weight->value;
  const std::string name = linear.name + ".weight";
  at::Tensor weight = original
                          ? original
                                ->read(name_in(*original, name),
                                       {linear.out_features(), linear.in_features()}, at::kFloat)
                                .to(linear.base->device())
                          : dequantized(*linear.base, name);
  if (linear.adapter) add_adapter(*linear.adapter, original != nullptr, weight);
  if (const lora::TrainedRows* trained = linear.trained_rows.get())
    weight.index_copy_(0, trained->index, trained->rows.value);
  return weight;
}

// The tensors of the merged model in the order of the layers, each made when its turn comes.
class Parts {
 public:
  Parts(at::ScalarType dtype, model::WeightSource* original, model::FileLayout layout)
      : dtype_(dtype), original_(original), layout_(std::move(layout)) {}

  void embedding(const std::string& name, const lora::Embedding& embedding) {
    if (embedding.trained) return trained(name, embedding.trained->value);
    if (!embedding.rows) return frozen(name, embedding.weight);
    add(name, embedding.weight.sizes().vec(), [name, &embedding, original = original_] {
      const at::Tensor weight =
          original ? original->read(name, embedding.weight.sizes().vec(), at::kFloat)
                         .to(embedding.weight.device())
                   : embedding.weight.to(at::kFloat);
      return weight.index_copy(0, embedding.rows->index, embedding.rows->rows.value);
    });
  }

  void norm(const std::string& module, const model::NormSpec& spec, const lora::NormWeight& norm) {
    const std::string weight = module + ".weight", bias = module + ".bias";
    if (spec.by_group)
      for (int64_t group = 0; group < spec.groups; ++group) {
        const std::string name = spec.tensor(module, group);
        norm.trained ? trained(name, norm.trained->value[group]) : frozen(name, norm.frozen[group]);
      }
    else if (norm.frozen.defined())
      norm.trained ? trained(weight, norm.trained->value) : frozen(weight, norm.frozen);
    if (norm.frozen_bias.defined())
      norm.trained_bias ? trained(bias, norm.trained_bias->value) : frozen(bias, norm.frozen_bias);
  }

  void linear(const lora::LoraLinear& linear) {
    add(linear.name + ".weight", {linear.out_features(), linear.in_features()},
        [&linear, original = original_] { return merged_weight(linear, original); });
    bias(linear);
  }

  void bias(const lora::LoraLinear& linear) {
    const std::string bias = linear.name + ".bias";
    if (linear.trained_bias) trained(bias, linear.trained_bias->value);
    // The zeros of a bias that the configuration promises and no file has.
    else if (linear.bias.defined() && original_ && !original_->has(bias))
      trained(bias, linear.bias);
    else if (linear.bias.defined())
      frozen(bias, linear.bias);
  }

  void group(const lora::LinearGroup& group) {
    for (const lora::LoraLinear& layer : group.layers()) linear(layer);
  }

  // As the family's files hold them; `block`: "model.layers.0.".
  void experts(const std::string& block, const model::ExpertsSpec& spec,
               const std::vector<model::ExpertWeights>& weights) {
    const model::ExpertFiles& files = spec.files;
    if (files.gate.empty()) {
      stack(block + files.stacked_gate_up, spec, spec.gate_up, weights, &Expert::gate_up);
      stack(block + files.stacked_down, spec, spec.down, weights, &Expert::down);
      return;
    }
    for (size_t e = 0; e < weights.size(); ++e) {
      const auto index = static_cast<int64_t>(e);
      const lora::LoraLinear& gate_up = weights[e].gate_up.layers().front();
      const lora::LoraLinear& down = weights[e].down.layers().front();
      rows(block + model::numbered(files.gate, index), gate_up, 0, spec.inner);
      rows(block + model::numbered(files.up, index), gate_up, spec.inner, spec.inner);
      rows(block + model::numbered(files.down, index), down, 0, spec.down.out);
    }
  }

  // One that no training changed.
  void frozen(const std::string& name, const at::Tensor& value) {
    add(name, value.sizes().vec(), [original = original_, name, value, dtype = dtype_] {
      return original ? original->read(name, value.sizes().vec(), dtype) : value;
    });
  }

  std::vector<WeightPart> take() { return std::move(parts_); }

 private:
  using Expert = model::ExpertWeights;

  void rows(const std::string& module, const lora::LoraLinear& linear, int64_t first,
            int64_t count) {
    add(module + ".weight", {count, linear.in_features()},
        [&linear, first, count, original = original_] {
          return merged_weight(linear, original).narrow(0, first, count);
        });
  }

  // One matrix of all experts.
  void stack(const std::string& name, const model::ExpertsSpec& spec,
             const model::LinearSpec& matrix, const std::vector<Expert>& weights,
             lora::LinearGroup Expert::*which) {
    const auto count = static_cast<int64_t>(weights.size());
    const bool by_inputs = spec.files.stacked_by_inputs;
    const bool in_turn = by_inputs && which == &Expert::gate_up;
    const auto of_all = [&weights, which, in_turn](const auto& of) {
      std::vector<at::Tensor> all;
      for (const Expert& expert : weights) {
        const at::Tensor tensor = of((expert.*which).layers().front());
        all.push_back(in_turn ? model::rows_in_turn(tensor) : tensor);
      }
      return at::stack(all);
    };
    add(name,
        by_inputs ? std::vector{count, matrix.in, matrix.out}
                  : std::vector{count, matrix.out, matrix.in},
        [of_all, by_inputs, original = original_] {
          const at::Tensor all = of_all([original](const lora::LoraLinear& linear) {
            return merged_weight(linear, original);
          });
          return by_inputs ? all.transpose(1, 2) : all;
        });
    if (matrix.bias)
      add(name + "_bias", {count, matrix.out},
          [of_all] { return of_all([](const lora::LoraLinear& linear) { return linear.bias; }); });
  }

  void trained(const std::string& name, const at::Tensor& value) {
    add(name, value.sizes().vec(), [value] { return value; });
  }
  void add(const std::string& name, const std::vector<int64_t>& shape,
           std::function<at::Tensor()> make) {
    if (!layout_.is_by_inputs(name)) {
      parts_.push_back({layout_.in_files(name), shape, dtype_, std::move(make)});
      return;
    }
    parts_.push_back(
        {name, {shape[1], shape[0]}, dtype_, [make = std::move(make)] { return make().t(); }});
  }

  at::ScalarType dtype_;
  model::WeightSource* original_;
  model::FileLayout layout_;
  std::vector<WeightPart> parts_;
};

std::vector<WeightPart> parts_of(const model::CausalLm& model, at::ScalarType dtype,
                                 model::WeightSource* original) {
  const model::Architecture& a = model.architecture();
  Parts parts(dtype, original, model::FileLayout(a));
  const model::EmbeddingSpec& first = a.embedding;
  parts.embedding(first.names.hugging_face + ".weight", model.embedding);
  if (first.positions.present())
    parts.frozen(first.positions.names.hugging_face + ".weight", model.positions);
  parts.norm(first.norm.names.hugging_face, first.norm, model.embedding_norm);
  parts.group(model.projection);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const model::Block& layer = model.layers[i];
    const auto index = static_cast<int64_t>(i);
    visit_norms(a.block(index), layer,
                [&](const model::NormSpec& spec, const lora::NormWeight& norm) {
                  parts.norm(a.module(index, spec.names), spec, norm);
                });
    for (const auto& [name, sinks] : layer.named_sinks(a, index)) parts.frozen(name, sinks);
    const auto& branches = a.block(index).branches;
    for (size_t b = 0; b < branches.size(); ++b) {
      if (const model::ExpertsSpec* experts = branches[b].experts())
        parts.experts(a.decoder.prefix.hugging_face + std::to_string(i) + ".", *experts,
                      layer.branches[b].experts);
      for (const lora::LinearGroup* group : layer.branches[b].groups())
        if (!lora::expert_name(group->layers().front().name)) parts.group(*group);
    }
  }
  parts.group(model.head_projection);
  for (const auto& [name, table] : model.relative_tables()) parts.frozen(name, table);
  const model::NormSpec &encoded = a.encoder.final_norm, &last = a.decoder.final_norm;
  parts.norm(encoded.names.hugging_face, encoded, model.encoder_norm);
  parts.norm(last.names.hugging_face, last, model.final_norm);
  const lora::LoraLinear& head = model.head.layers().front();
  model.embeddings_still_tied() ? parts.bias(head) : parts.linear(head);
  return parts.take();
}

}  // namespace

void write_merged(const std::string& directory, const model::CausalLm& model,
                  const data::Tokenizer& tokenizer, const data::ChatTemplate* chat_template,
                  const std::string& source, at::ScalarType dtype, model::WeightSource* original) {
  at::NoGradGuard no_grad;
  write_weight_files(directory, parts_of(model, dtype, original), "the merged model");
  write_tokenizer(directory, tokenizer, chat_template);
  io::write_file_atomically((fs::path(directory) / "config.json").string(),
                            config_text(model.architecture(), tokenizer, source, dtype,
                                        std::nullopt, model.embeddings_still_tied()));
}

}  // namespace qlora::exporting
