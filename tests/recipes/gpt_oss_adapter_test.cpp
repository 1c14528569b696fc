// An adapter of gpt-oss' experts as PEFT writes it. transformers has gate_up_proj as [experts, in,
// out] with the columns of gate and up in turn, and PEFT adds scaling · "o r e, e r i -> e i o" of
// lora_B [out, rank * experts] and lora_A [rank * experts, in] to it.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/seed.h"
#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/combined_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kLayers = 2, kExperts = 4, kHidden = 64, kInner = 32, kRank = 3;
constexpr double kScaling = 2;
constexpr const char* kConfig = R"({
    "model_type": "gpt_oss", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 32,
    "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": false})";

at::Tensor numbers(const std::string& key, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i)
    tensor.data_ptr<float>()[i] = 0.05f * normal(random_key(3, key), static_cast<uint64_t>(i));
  return tensor;
}

using Tensors = std::map<std::string, at::Tensor>;

Tensors tensors_in(const std::string& file) {
  Tensors tensors;
  for (const auto& [name, tensor] : quant::read_tensors(file)) tensors.emplace(name, tensor);
  return tensors;
}

Tensors adapter_in(const std::string& directory) {
  return tensors_in((fs::path(directory) / "adapter_model.safetensors").string());
}

std::string experts_of(int64_t layer) { return fmt::format("model.layers.{}.mlp.experts.", layer); }

// As PEFT nests its wrappers, that of gate_up_proj lies within that of down_proj.
std::string stack_of(int64_t layer, bool is_gate_up) {
  return "base_model.model." + experts_of(layer) + (is_gate_up ? "base_layer." : "");
}

class GptOssAdapter : public testing::Test {
 protected:
  void SetUp() override {
    test::write_made_directory(dir / "gpt_oss", kConfig);
    for (int64_t layer = 0; layer < kLayers; ++layer)
      for (const bool is_gate_up : {true, false}) {
        const int64_t in = is_gate_up ? kHidden : kInner, out = is_gate_up ? 2 * kInner : kHidden;
        const std::string a = stack_of(layer, is_gate_up) + "lora_A.weight",
                          b = stack_of(layer, is_gate_up) + "lora_B.weight";
        tensors[a] = numbers(a, {kRank * kExperts, in});
        tensors[b] = numbers(b, {out, kRank * kExperts});
      }
    const json config = {
        {"peft_type", "LORA"},
        {"r", kRank},
        {"lora_alpha", kScaling * kRank},
        {"target_modules", json::array()},
        {"target_parameters", {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}},
        {"init_lora_weights", true}};
    dir.write("adapter/adapter_config.json", config.dump());
    quant::write_tensors(dir / "adapter/adapter_model.safetensors",
                         quant::NamedTensors(tensors.begin(), tensors.end()));
  }

  ModelChoice choice(const std::string& base, const std::string& adapter) const {
    ModelChoice chosen;
    chosen.model = dir / base;
    chosen.adapter = dir / adapter;
    chosen.device = "cpu";
    chosen.threads = 2;
    chosen.compute_dtype = "float32";
    return chosen;
  }

  // What PEFT adds, in the form of the model's files.
  at::Tensor product(int64_t layer, bool is_gate_up) const {
    const at::Tensor& a = tensors.at(stack_of(layer, is_gate_up) + "lora_A.weight");
    const at::Tensor& b = tensors.at(stack_of(layer, is_gate_up) + "lora_B.weight");
    return at::einsum("ore,eri->eio",
                      {b.view({b.size(0), kRank, kExperts}), a.view({kExperts, kRank, a.size(1)})})
        .mul(kScaling);
  }

  void expect_tensors_of_peft(const std::string& directory) const {
    const Tensors found = adapter_in(dir / directory);
    EXPECT_EQ(found.size(), tensors.size()) << directory;
    for (const auto& [name, tensor] : tensors) {
      ASSERT_TRUE(found.contains(name)) << directory << " " << name;
      EXPECT_TRUE(at::equal(found.at(name), tensor)) << directory << " " << name;
    }
  }

  test::TempDir dir;
  Tensors tensors;
};

const model::ExpertWeights& expert_of(const TrainedModel& trained, int64_t layer, int64_t expert) {
  return trained.base.model->layers.at(static_cast<size_t>(layer))
      .branches.back()
      .experts.at(static_cast<size_t>(expert));
}

at::Tensor delta(const lora::LinearGroup& group) {
  const lora::Adapter& adapter = *group.layers().front().adapter;
  return adapter.b.mm(adapter.a) * adapter.scaling;
}

TEST_F(GptOssAdapter, IsReadWithTheGatesRowsAboveThoseOfUpOnEveryKindOfFile) {
  test::write_mxfp4_directory(dir / "mxfp4");
  test::write_mxfp4_gguf(dir / "mxfp4", dir / "mxfp4.gguf");
  for (const char* base : {"gpt_oss", "mxfp4", "mxfp4.gguf"}) {
    const TrainedModel trained = open_model(choice(base, "adapter"));
    for (int64_t layer = 0; layer < kLayers; ++layer)
      for (int64_t e = 0; e < kExperts; ++e) {
        const model::ExpertWeights& expert = expert_of(trained, layer, e);
        const at::Tensor gate_up = expert.gate_up.layers().front().adapter->b,
                         down = expert.down.layers().front().adapter->b;
        // Each number by itself: [rows, rank] here, [rows, rank, experts] in the file.
        const auto in_file = [&](bool is_gate_up) {
          const at::Tensor& b = tensors.at(stack_of(layer, is_gate_up) + "lora_B.weight");
          return b.view({b.size(0), kRank, kExperts});
        };
        const at::Tensor turns = in_file(true), rows = in_file(false);
        for (int64_t i = 0; i < kInner; ++i) {
          EXPECT_TRUE(at::equal(gate_up[i], turns[2 * i].select(1, e))) << base << " " << i;
          EXPECT_TRUE(at::equal(gate_up[kInner + i], turns[2 * i + 1].select(1, e)))
              << base << " " << i;
        }
        EXPECT_TRUE(at::equal(down, rows.select(2, e))) << base;
      }
  }
}

TEST_F(GptOssAdapter, IsWrittenAsItWasRead) {
  TrainedModel trained = open_model(choice("gpt_oss", "adapter"));
  export_model(trained, {"adapter", dir / "again", "float32"});
  expect_tensors_of_peft("again");
}

TEST_F(GptOssAdapter, MergedWeightsAreTheBasesWithPeftsProductAdded) {
  TrainedModel trained = open_model(choice("gpt_oss", "adapter"));
  export_model(trained, {"merged", dir / "merged", "float32"});
  const Tensors base = tensors_in(dir / "gpt_oss/model.safetensors"),
                merged = tensors_in(dir / "merged/model.safetensors");
  for (int64_t layer = 0; layer < kLayers; ++layer)
    for (const bool is_gate_up : {true, false}) {
      const std::string name = experts_of(layer) + (is_gate_up ? "gate_up_proj" : "down_proj");
      const at::Tensor added = product(layer, is_gate_up);
      EXPECT_GT(added.abs().max().item<float>(), 1e-3);  // far more than what is allowed below
      // Sums of three products of some 1e-2 and a weight below 1 in fp32.
      EXPECT_TRUE(at::allclose(merged.at(name), base.at(name).to(at::kFloat) + added, 0, 1e-6))
          << name;
    }
}

// Two steps at a rate of zero, and a third one from their checkpoint.
TEST_F(GptOssAdapter, ARunAndItsCheckpointsHaveItInPeftsOrder) {
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.model.path = dir / "gpt_oss";
  recipe.quantization = {};
  recipe.quantization.method = "none";
  recipe.lora.from_adapter = dir / "adapter";
  recipe.optim.lr = 0;
  recipe.train.max_steps = 2;
  finetune(recipe, std::atomic<bool>(false));
  expect_tensors_of_peft("run/adapter");
  expect_tensors_of_peft("run/checkpoint-000002/adapter");
  recipe.train.max_steps = 3;
  recipe.train.on_extend = "rescale";
  finetune(recipe, std::atomic<bool>(false));
  expect_tensors_of_peft("run/adapter");
}

TEST_F(GptOssAdapter, CombinedByCatExpertsHaveTheWeightedSumOfTheirProducts) {
  TrainedModel trained = open_model(choice("gpt_oss", "adapter"));
  export_model(trained, {"adapter", dir / "one", "float32"});
  lora::CombineOptions options;
  options.method = "cat";
  options.weights = {0.7, -0.3};
  TrainedModel combined =
      open_combined_model(choice("gpt_oss", "one"), {dir / "one", dir / "one"}, options);
  export_model(combined, {"adapter", dir / "sum", "float32"});
  const TrainedModel read = open_model(choice("gpt_oss", "sum"));
  EXPECT_EQ(read.recipe.lora.rank, 2 * kRank);
  for (int64_t layer = 0; layer < kLayers; ++layer)
    for (int64_t e = 0; e < kExperts; ++e) {
      const model::ExpertWeights &found = expert_of(read, layer, e),
                                 &one = expert_of(trained, layer, e);
      // Sums of six products of some 1e-2 in fp32.
      EXPECT_TRUE(at::allclose(delta(found.gate_up), delta(one.gate_up) * 0.4, 1e-5, 1e-7));
      EXPECT_TRUE(at::allclose(delta(found.down), delta(one.down) * 0.4, 1e-5, 1e-7));
    }
}

}  // namespace
}  // namespace qlora::recipes
