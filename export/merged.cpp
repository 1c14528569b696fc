#include "export/merged.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "export/config_file.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

at::Tensor merged_weight(const lora::LoraLinear& linear) {
  at::Tensor weight =
      at::empty({linear.out_features(), linear.in_features()},
                at::TensorOptions().dtype(at::kFloat).device(linear.base->device()));
  linear.base->dequantize_rows(0, 0, linear.out_features(), weight);
  if (const lora::Adapter* adapter = linear.adapter.get()) {
    weight.addmm_(adapter->b, adapter->a, 1.0, adapter->scaling);
    if (adapter->is_dora()) weight.mul_(adapter->factor.unsqueeze(1));
  }
  return weight;
}

std::vector<WeightPart> parts_of(const model::CausalLm& model, at::ScalarType dtype) {
  std::vector<WeightPart> parts;
  const auto tensor = [&parts, dtype](const std::string& name, const at::Tensor& value) {
    parts.push_back({name, value.sizes().vec(), dtype, [value] { return value; }});
  };
  tensor("model.embed_tokens.weight", model.embedding);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const model::DecoderLayer& layer = model.layers[i];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    tensor(prefix + "input_layernorm.weight", layer.input_norm);
    tensor(prefix + "post_attention_layernorm.weight", layer.post_attention_norm);
    for (const lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      for (const lora::LoraLinear& linear : group->layers()) {
        parts.push_back({linear.name + ".weight",
                         {linear.out_features(), linear.in_features()},
                         dtype,
                         [&linear] { return merged_weight(linear); }});
        if (linear.bias.defined()) tensor(linear.name + ".bias", linear.bias);
      }
  }
  tensor("model.norm.weight", model.final_norm);
  if (!model.config().tied_embeddings) {
    const quant::FrozenWeight* head = model.head.get();
    parts.push_back({"lm_head.weight", {head->out_features(), head->in_features()}, dtype, [head] {
                       at::Tensor weight =
                           at::empty({head->out_features(), head->in_features()},
                                     at::TensorOptions().dtype(at::kFloat).device(head->device()));
                       head->dequantize_rows(0, 0, head->out_features(), weight);
                       return weight;
                     }});
  }
  return parts;
}

}  // namespace

void write_merged(const std::string& directory, const model::CausalLm& model,
                  const data::Tokenizer& tokenizer, const std::string& source,
                  at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  write_weight_files(directory, parts_of(model, dtype), "the merged model");
  tokenizer.write_files(directory);
  io::write_file_atomically((fs::path(directory) / "config.json").string(),
                            config_text(model, tokenizer, source, dtype, std::nullopt));
}

}  // namespace qlora::exporting
