#include "recipes/merge_base.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/error.h"
#include "lora/weight_init.h"
#include "model/hub_cache.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// Of one weight between a base and its original. 4-bit codes leave about 0.1, 2-bit GGUF blocks
// 0.3; unrelated weights of the same size differ by 1.4.
constexpr double kLargestDifference = 0.7;

// "model.layers.0.mlp.up_proj is stored as Q4_1"; empty: every tensor is floating point.
std::string packed_module(const model::WeightSource& source, model::CausalLm& model) {
  const auto packed = [&source](const std::string& module) {
    const std::string packing = source.packing(module);
    return packing.empty() ? packing : fmt::format("{} is stored as {}", module, packing);
  };
  for (const lora::LinearGroup* group : model.groups())
    for (const lora::LoraLinear& linear : group->layers())
      if (std::string found = packed(linear.name); !found.empty()) return found;
  if (std::string found = packed("model.embed_tokens"); !found.empty()) return found;
  return packed("lm_head");
}

void require_same_shape(const model::WeightSource& original, const model::ModelConfig& base) {
  const model::ModelConfig& found = original.config();
  const auto same = [&original](const char* what, auto wanted, auto has) {
    if (wanted == has) return;
    fail<ConfigError>("--original: {} is not the model of the base: {} is {}, in the base {}",
                      original.place(), what, has, wanted);
  };
  same("the family", base.family, found.family);
  same("the number of layers", base.num_layers, found.num_layers);
  same("the hidden size", base.hidden_size, found.hidden_size);
  same("the intermediate size", base.intermediate_size, found.intermediate_size);
  same("the number of heads", base.num_heads, found.num_heads);
  same("the number of key-value heads", base.num_kv_heads, found.num_kv_heads);
  same("the head size", base.head_dim, found.head_dim);
  same("the vocabulary", base.vocab_size, found.vocab_size);
  same("tied embeddings", base.tied_embeddings, found.tied_embeddings);
}

// One weight tells another model of the same shape.
void require_same_weights(model::WeightSource& original, const lora::LoraLinear& linear) {
  const std::vector<int64_t> shape = {linear.out_features(), linear.in_features()};
  at::Tensor base =
      at::empty(shape, at::TensorOptions().dtype(at::kFloat).device(linear.base->device()));
  linear.base->dequantize_rows(0, 0, linear.out_features(), base);
  const at::Tensor weight =
      original.read(linear.name + ".weight", shape, at::kFloat).to(base.device());
  const double norm = weight.norm().item<double>();
  const double difference = base.sub_(weight).norm().item<double>();
  if (difference <= kLargestDifference * norm) return;
  fail<ConfigError>(
      "--original: {} is not the model that the base was quantized from: {} differs by {:.2f} of "
      "its norm",
      original.place(), linear.name, norm > 0 ? difference / norm : difference);
}

void require_unchanged_base(const BaseModel& base) {
  if (!adapter_holds_part_of(base)) return;
  const std::string init =
      lora::init_changes_base(base.record.init) ? "lora.init " + base.record.init : "its lora.init";
  fail<ConfigError>(
      "--merge-base: the adapter belongs to the base {} and not to the original weights: {} put a "
      "part of them in the adapter; use --merge-base dequantized",
      base.path, init);
}

}  // namespace

void check_merge_base(const std::string& name) {
  if (name != "dequantized" && name != "original" && name != "auto")
    fail<ConfigError>("--merge-base must be dequantized, original or auto, found '{}'", name);
}

std::unique_ptr<model::WeightSource> open_original(const TrainedModel& trained,
                                                   const std::string& given) {
  require_unchanged_base(trained.base);
  model::CausalLm& model = *trained.base.model;
  const std::vector<std::string> places =
      given.empty() ? trained.sources : std::vector<std::string>{given};
  std::string reason = "where they lay is gone";
  for (const std::string& place : places) {
    if (given.empty() && !fs::exists(place)) continue;
    const std::string path = model::resolve_model_path(place);
    auto source = model::open_weights(path);
    const std::string packed = packed_module(*source, model);
    if (!packed.empty()) {
      reason = fmt::format("in {} {}", path, packed);
      continue;
    }
    require_same_shape(*source, model.config());
    require_same_weights(*source, model.groups().front()->layers().front());
    return source;
  }
  fail<ConfigError>(
      "--merge-base original and auto need the base's 16-bit weights, but {}; name the 16-bit "
      "model "
      "with --original",
      reason);
}

}  // namespace qlora::recipes
