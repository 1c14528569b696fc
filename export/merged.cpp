#include "export/merged.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/read_file.h"
#include "io/safetensors.h"
#include "model/families/family.h"
#include "quant/tensor_file.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kShardBytes = 5'000'000'000;

// A tensor of the merged model, made when it is written.
struct Part {
  std::string name;
  std::vector<int64_t> shape;
  std::function<at::Tensor()> make;  // fp32 or the final dtype
};

at::Tensor merged_weight(const lora::LoraLinear& linear) {
  at::Tensor weight =
      at::empty({linear.out_features(), linear.in_features()},
                at::TensorOptions().dtype(at::kFloat).device(linear.base->device()));
  linear.base->dequantize_rows(0, 0, linear.out_features(), weight);
  if (const lora::Adapter* adapter = linear.adapter.get())
    weight.addmm_(adapter->b, adapter->a.detach(), 1.0, adapter->scaling);
  return weight;
}

std::vector<Part> parts_of(const model::CausalLm& model) {
  std::vector<Part> parts;
  const auto tensor = [&parts](const std::string& name, const at::Tensor& value) {
    parts.push_back({name, value.sizes().vec(), [value] { return value; }});
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
                         [&linear] { return merged_weight(linear); }});
        if (linear.bias.defined()) tensor(linear.name + ".bias", linear.bias);
      }
  }
  tensor("model.norm.weight", model.final_norm);
  if (!model.config().tied_embeddings) {
    const quant::FrozenWeight* head = model.head.get();
    parts.push_back({"lm_head.weight", {head->out_features(), head->in_features()}, [head] {
                       at::Tensor weight =
                           at::empty({head->out_features(), head->in_features()},
                                     at::TensorOptions().dtype(at::kFloat).device(head->device()));
                       head->dequantize_rows(0, 0, head->out_features(), weight);
                       return weight;
                     }});
  }
  return parts;
}

int64_t bytes_of(const Part& part, at::ScalarType dtype) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : part.shape) bytes *= size;
  return bytes;
}

void write_shard(const std::string& path, const std::vector<Part>& parts, at::ScalarType dtype) {
  std::vector<io::TensorHeader> headers;
  for (const Part& part : parts)
    headers.push_back({part.name, quant::file_dtype(dtype), part.shape});
  io::SafetensorsWriter writer(path, std::move(headers), {{"format", "pt"}});
  for (const Part& part : parts) {
    const at::Tensor value = part.make().to(dtype).cpu().contiguous();
    check(at::isfinite(value).all().item<bool>(),
          "the merged weight {} is not finite as {}; export with --dtype bfloat16", part.name,
          c10::toString(dtype));
    writer.write(part.name,
                 {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()});
  }
  writer.finish();
}

void write_weights(const std::string& directory, const std::vector<Part>& parts,
                   at::ScalarType dtype) {
  std::vector<std::vector<Part>> shards(1);
  int64_t total = 0, in_shard = 0;
  for (const Part& part : parts) {
    const int64_t bytes = bytes_of(part, dtype);
    if (in_shard > 0 && in_shard + bytes > kShardBytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(part);
    in_shard += bytes;
    total += bytes;
  }
  io::require_free_space(directory, static_cast<uint64_t>(total), "the merged model");
  if (shards.size() == 1) {
    write_shard((fs::path(directory) / "model.safetensors").string(), parts, dtype);
    return;
  }
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard((fs::path(directory) / name).string(), shards[i], dtype);
    for (const Part& part : shards[i]) map[part.name] = name;
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  io::write_file_atomically((fs::path(directory) / "model.safetensors.index.json").string(),
                            index.dump(2) + "\n");
}

const char* dtype_name(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

std::string config_text(const model::CausalLm& model, const data::Tokenizer& tokenizer,
                        const std::string& source, at::ScalarType dtype) {
  nlohmann::ordered_json config;
  const fs::path original = fs::path(source) / "config.json";
  if (fs::is_directory(source) && fs::exists(original)) {
    config = nlohmann::ordered_json::parse(io::read_bytes(original.string()));
    config.erase("quantization_config");
    config.erase("dtype");
    config["torch_dtype"] = dtype_name(dtype);
  } else {
    config = model::family_named(model.config().family)
                 .to_hugging_face(model.config(), dtype_name(dtype));
    const data::SpecialTokens& special = tokenizer.special_tokens();
    if (special.bos) config["bos_token_id"] = special.bos->id;
    if (special.eos) config["eos_token_id"] = special.eos->id;
    if (special.pad) config["pad_token_id"] = special.pad->id;
  }
  return config.dump(2) + "\n";
}

}  // namespace

void write_merged(const std::string& directory, const model::CausalLm& model,
                  const data::Tokenizer& tokenizer, const std::string& source,
                  at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  write_weights(directory, parts_of(model), dtype);
  tokenizer.write_files(directory);
  io::write_file_atomically((fs::path(directory) / "config.json").string(),
                            config_text(model, tokenizer, source, dtype));
}

}  // namespace qlora::exporting
