// A mixture of many small experts, each matrix of which is a tensor of its own.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "model/weight_source.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::model {
namespace {

constexpr int kLayers = 48, kExperts = 128, kShards = 4, kHidden = 8, kInner = 2;

// As Qwen3-30B-A3B lies in its files, with tiny matrices: 18,867 tensors.
void write_mixture(const test::TempDir& dir) {
  const auto zeros = [](std::initializer_list<int64_t> shape) {
    return at::zeros(shape, at::kBFloat16);
  };
  std::vector<quant::NamedTensors> shards(kShards);
  shards[0] = {{"model.embed_tokens.weight", zeros({16, kHidden})},
               {"model.norm.weight", zeros({kHidden})},
               {"lm_head.weight", zeros({16, kHidden})}};
  const at::Tensor in = zeros({kInner, kHidden}), out = zeros({kHidden, kInner});
  const at::Tensor square = zeros({kHidden, kHidden}), norm = zeros({kHidden});
  const at::Tensor head_norm = zeros({kHidden / 2}), router = zeros({kExperts, kHidden});
  for (int layer = 0; layer < kLayers; ++layer) {
    quant::NamedTensors& shard = shards[static_cast<size_t>(layer * kShards / kLayers)];
    const std::string block = fmt::format("model.layers.{}.", layer);
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      shard.emplace_back(block + "self_attn." + name + ".weight", square);
    for (const char* name : {"self_attn.q_norm", "self_attn.k_norm"})
      shard.emplace_back(block + name + ".weight", head_norm);
    for (const char* name : {"input_layernorm", "post_attention_layernorm"})
      shard.emplace_back(block + name + ".weight", norm);
    shard.emplace_back(block + "mlp.gate.weight", router);
    for (int expert = 0; expert < kExperts; ++expert)
      for (const char* name : {"gate_proj", "up_proj", "down_proj"})
        shard.emplace_back(fmt::format("{}mlp.experts.{}.{}.weight", block, expert, name),
                           name == std::string("down_proj") ? out : in);
  }
  nlohmann::json index = {{"weight_map", nlohmann::json::object()}};
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, kShards);
    quant::write_tensors(dir / file, shards[i]);
    for (const auto& [name, tensor] : shards[i]) index["weight_map"][name] = file;
  }
  dir.write("model.safetensors.index.json", index.dump());
  dir.write("config.json", nlohmann::json({{"model_type", "qwen3_moe"},
                                           {"vocab_size", 16},
                                           {"hidden_size", kHidden},
                                           {"intermediate_size", 16},
                                           {"moe_intermediate_size", kInner},
                                           {"num_hidden_layers", kLayers},
                                           {"num_attention_heads", 2},
                                           {"num_key_value_heads", 2},
                                           {"head_dim", kHidden / 2},
                                           {"num_experts", kExperts},
                                           {"num_experts_per_tok", 8},
                                           {"tie_word_embeddings", false}})
                               .dump());
}

TEST(ManyTensors, ADirectoryOfNineteenThousandOpensWithinSecondsOfTheProcessor) {
  const test::TempDir dir;
  write_mixture(dir);
  const std::clock_t before = std::clock();
  const auto source = open_weights(dir.path());
  int found = 0;
  for (int layer = 0; layer < kLayers; ++layer)
    for (int expert = 0; expert < kExperts; ++expert)
      found += source->has(
          fmt::format("model.layers.{}.mlp.experts.{}.gate_up_proj.weight", layer, expert));
  const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_EQ(found, kLayers * kExperts);
  EXPECT_LT(seconds, 3.0);  // a third of one on a fast processor
}

}  // namespace
}  // namespace qlora::model
