#include "recipes/exports/merge_base.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <map>

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
  const model::Architecture& a = model.architecture();
  if (std::string found = packed(a.embedding.names.hugging_face); !found.empty()) return found;
  return packed(a.head.names.hugging_face);
}

// "[1536, 576]" of each linear module.
std::map<std::string, std::string> shapes_of(const model::Architecture& a) {
  std::map<std::string, std::string> shapes;
  for_each_linear(a, [&](const std::string& module, const model::LinearSpec& linear) {
    shapes[module] = fmt::format("[{}, {}]", linear.out, linear.in);
  });
  return shapes;
}

void require_same_shape(const model::WeightSource& original, const model::Architecture& base) {
  const model::Architecture& found = original.architecture();
  const auto same = [&original](const char* what, auto wanted, auto has) {
    if (wanted == has) return;
    fail<ConfigError>("--original: {} is not the model of the base: {} is {}, in the base {}",
                      original.place(), what, has, wanted);
  };
  same("the number of layers", base.num_layers(), found.num_layers());
  same("the hidden size", base.hidden_size, found.hidden_size);
  const model::AttentionShape &in_base = base.block(0).attention().shape,
                              &in_found = found.block(0).attention().shape;
  same("the number of heads", in_base.heads, in_found.heads);
  same("the number of key-value heads", in_base.kv_heads, in_found.kv_heads);
  same("the head size", in_base.head_dim, in_found.head_dim);
  const auto wanted = shapes_of(base), has = shapes_of(found);
  for (const auto& [module, shape] : wanted) {
    const auto other = has.find(module);
    same(("the shape of " + module).c_str(), shape,
         other == has.end() ? std::string("none") : other->second);
  }
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
    require_same_shape(*source, model.architecture());
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
