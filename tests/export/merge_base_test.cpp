// What an adapter is merged into: the quantized base or the weights before quantization.
#include "recipes/exports/merge_base.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seed.h"
#include "export/merged.h"
#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/exports/quantize_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::recipes {
namespace {
using ::testing::HasSubstr;
using Weights = std::map<std::string, at::Tensor>;

class MergeBase : public ::testing::Test {
 protected:
  MergeBase() { test::write_tiny_directory(dir / "model"); }

  // The tiny model on a base of 4 bit, or as `path` stores it, with an adapter on every layer.
  TrainedModel trained(lora::LoraOptions lora = {}, const std::string& method = "nf4",
                       const std::string& path = "") {
    TrainedModel made;
    made.recipe.model.path = path.empty() ? dir / "model" : path;
    made.recipe.quantization.method = method;
    made.recipe.quantization.block_size = 32;
    made.recipe.train.compute_dtype = "float32";
    lora.rank = 4;
    lora.alpha = 8;
    made.recipe.lora = lora;
    made.base = load_base(made.recipe, at::kCPU);
    made.sources = {made.base.path};
    made.adapters =
        std::make_unique<lora::AdapterSet>(lora, made.base.model->parts(), at::kFloat, 3);
    for (const lora::AdapterTensor& tensor : made.adapters->tensors())
      if (tensor.name.ends_with(".lora_B.weight")) {
        at::Tensor b = tensor.value;
        for (int64_t i = 0; i < b.numel(); ++i)
          b.data_ptr<float>()[i] =
              0.02f * normal(random_key(9, tensor.name), static_cast<uint64_t>(i));
      }
    made.adapters->publish();
    return made;
  }
  ExportOptions merged(const std::string& name, const std::string& base,
                       const std::string& dtype = "float32") const {
    ExportOptions options{"merged", dir / name, dtype};
    options.merge_base = base;
    return options;
  }
  Weights written(const std::string& name) const {
    Weights weights;
    for (auto& [tensor, value] : quant::read_tensors(dir / name + "/model.safetensors"))
      weights.emplace(tensor, value);
    return weights;
  }
  nlohmann::json report(const std::string& name) const {
    return nlohmann::json::parse(test::read_file(dir / name + "/verification.json"));
  }
  static at::Tensor delta(const lora::LoraLinear& linear) {
    return linear.adapter->b.to(at::kDouble).mm(linear.adapter->a.to(at::kDouble)) *
           linear.adapter->scaling;
  }
  template <typename F>
  static void for_each_linear(const TrainedModel& model, const F& f) {
    for (const lora::LinearGroup* group : model.base.model->groups())
      for (const lora::LoraLinear& linear : group->layers()) f(linear);
  }
  // What is thrown, which must name this.
  template <typename F>
  static void expect_refused(const F& f, const std::string& named) {
    try {
      f();
      ADD_FAILURE() << "taken in spite of " << named;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(named));
    }
  }

  const test::TempDir dir;
};

TEST_F(MergeBase, OnTheOriginalEachWeightIsTheFilesPlusTheDelta) {
  TrainedModel model = trained();
  export_model(model, merged("fp32", "original"));
  export_model(model, merged("bf16", "original", "bfloat16"));
  const Weights file = written("model"), fp32 = written("fp32"), bf16 = written("bf16");
  for_each_linear(model, [&](const lora::LoraLinear& linear) {
    const std::string name = linear.name + ".weight";
    const at::Tensor exact = file.at(name).to(at::kDouble) + delta(linear);
    // A sum of five numbers below 1 in fp32, whatever its order.
    EXPECT_LE((fp32.at(name) - exact).abs().max().item<double>(), 5 * 6e-8) << name;
  });
  ASSERT_EQ(bf16.size(), file.size());
  for (const auto& [name, value] : fp32)  // rounded once, from that sum
    EXPECT_TRUE(at::equal(value.to(at::kBFloat16), bf16.at(name))) << name;
  for (const auto& [name, value] : file) {
    if (name.find("proj") != std::string::npos) continue;
    EXPECT_TRUE(at::equal(value, bf16.at(name))) << name;
  }
}

TEST_F(MergeBase, AnAdapterOnATiedHeadIsMergedIntoTheEmbeddingsMatrix) {
  lora::LoraOptions lora;
  lora.targets = {"q_proj", "lm_head"};
  TrainedModel model = trained(lora);
  export_model(model, merged("out", "original"));
  const Weights file = written("model"), out = written("out");
  ASSERT_FALSE(file.contains("lm_head.weight"));
  const at::Tensor exact = file.at("model.embed_tokens.weight").to(at::kDouble) +
                           delta(model.base.model->head.layers().front());
  EXPECT_LE((out.at("lm_head.weight") - exact).abs().max().item<double>(), 5 * 6e-8);
  EXPECT_TRUE(at::equal(out.at("model.embed_tokens.weight"),
                        file.at("model.embed_tokens.weight").to(at::kFloat)));
}

TEST_F(MergeBase, ABiasThatTheConfigurationPromisesAndNoFileHasIsZero) {
  const std::string config_path = dir / "model/config.json";
  auto config = nlohmann::json::parse(test::read_file(config_path));
  config["attention_bias"] = true;
  dir.write("model/config.json", config.dump());
  quant::NamedTensors tensors = quant::read_tensors(dir / "model/model.safetensors");
  std::vector<std::string> biases;
  const size_t count = tensors.size();
  for (size_t i = 0; i < count; ++i) {
    const auto [name, weight] = tensors[i];
    if (name.find("q_proj") == std::string::npos && name.find("k_proj") == std::string::npos &&
        name.find("v_proj") == std::string::npos)
      continue;
    biases.push_back(name.substr(0, name.rfind('.')) + ".bias");
    tensors.emplace_back(biases.back(), at::full({weight.size(0)}, 0.25, at::kBFloat16));
  }
  std::filesystem::remove(dir / "model/model.safetensors");
  quant::write_tensors(dir / "model/model.safetensors", tensors, {{"format", "pt"}});
  TrainedModel model = trained();
  export_model(model, merged("out", "original"));
  const Weights out = written("out");
  ASSERT_EQ(biases.size(), 6u);
  for (const std::string& bias : biases) EXPECT_TRUE((out.at(bias) == 0.25).all().item<bool>());
  for (const char* layer : {"0", "1"}) {
    const std::string name = std::string("model.layers.") + layer + ".self_attn.o_proj.bias";
    EXPECT_TRUE((out.at(name) == 0).all().item<bool>()) << name;
  }
}

TEST_F(MergeBase, OnTheDequantizedBaseItIsAnotherModel) {
  TrainedModel model = trained();
  const auto same = export_model(model, merged("base", "dequantized"));
  const auto other = export_model(model, merged("original", "original"));
  EXPECT_LT(same.kl_mean, 1e-6);  // fp32 throughout: the trained model
  EXPECT_GT(other.kl_mean, 100 * same.kl_mean);
  EXPECT_EQ(report("base")["merge_base"], "dequantized");
  EXPECT_EQ(report("original")["merge_base"], "original");
  EXPECT_EQ(report("original")["dtype"], "float32");
  EXPECT_GT(report("original")["trained_loss"].get<double>(), 0);
}

TEST_F(MergeBase, DoRAsNormIsOfTheWeightsInUse) {
  lora::LoraOptions dora;
  dora.use_dora = true;
  TrainedModel model = trained(dora);
  export_model(model, merged("out", "original"));
  const auto agreement = export_model(model, merged("base", "dequantized"));
  EXPECT_LT(agreement.kl_mean, 1e-6);
  const Weights file = written("model"), out = written("out");
  for_each_linear(model, [&](const lora::LoraLinear& linear) {
    const std::string name = linear.name + ".weight";
    const at::Tensor sum = file.at(name).to(at::kDouble) + delta(linear);
    const at::Tensor expected =
        sum / sum.norm(2, {1}, true) * linear.adapter->magnitude.unsqueeze(1);
    EXPECT_TRUE(at::allclose(out.at(name).to(at::kDouble), expected, 1e-5, 1e-6)) << name;
  });
}

TEST_F(MergeBase, EveryFormatMergesEitherWay) {
  for (const char* method : {"nf4", "fp4", "int8", "int8_weight_only", "none", "as_stored"}) {
    lora::LoraOptions options;
    options.use_rslora = true;
    options.rank_pattern = {{"down_proj", 2}};
    options.alpha_pattern = {{"q_proj", 3}};
    TrainedModel model = trained(options, method);
    const std::string name = method;
    // int8 rounds its inputs to 8 bit, which the merged model does not: some 1e-3 a weight.
    EXPECT_LT(export_model(model, merged(name, "dequantized")).kl_mean,
              name == "int8" ? 1e-2 : 1e-6)
        << name;
    export_model(model, merged(name + "-original", "original"));
    const Weights file = written("model"), out = written(name + "-original");
    for_each_linear(model, [&](const lora::LoraLinear& linear) {
      const at::Tensor exact = file.at(linear.name + ".weight").to(at::kDouble) + delta(linear);
      EXPECT_LE((out.at(linear.name + ".weight") - exact).abs().max().item<double>(), 5 * 6e-8)
          << name << " " << linear.name;
    });
  }
}

// Multiplies with a weight and says that it stands for another one.
class Dissembling final : public quant::FrozenWeight {
 public:
  explicit Dissembling(at::Tensor weight) : weight_(std::move(weight)) {}
  int64_t out_features() const override { return weight_.size(0); }
  int64_t in_features() const override { return weight_.size(1); }
  at::Device device() const override { return weight_.device(); }
  std::string format() const override { return "dissembling"; }
  quant::WeightTraits traits() const override {
    return {quant::WeightKind::kStored, weight_.scalar_type()};
  }
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }
  void dequantize_rows(int64_t, int64_t begin, int64_t end, at::Tensor& out) const override {
    out.copy_(weight_.narrow(0, begin, end - begin) * 1.05);
  }
  at::Tensor stored_rows(at::ScalarType dtype, int64_t) const override { return weight_.to(dtype); }
  quant::NamedTensors state() const override { return {{"weight", weight_}}; }
  std::vector<at::Tensor*> parts() override { return {&weight_}; }

 private:
  at::Tensor weight_;
};

TEST_F(MergeBase, AutoKeepsTheOneNearerToTheTrainedModel) {
  TrainedModel quantized = trained();
  export_model(quantized, merged("four-bit", "auto"));
  TrainedModel dissembling = trained({}, "none");
  for (lora::LinearGroup* group : dissembling.base.model->groups())
    for (lora::LoraLinear& linear : group->layers())
      linear.base = std::make_unique<Dissembling>(linear.base->state()[0].second);
  export_model(dissembling, merged("unlike", "auto"));

  for (const auto& [name, kept, other] :
       {std::tuple{"four-bit", "dequantized", "original"}, {"unlike", "original", "dequantized"}}) {
    const auto json = report(name);
    EXPECT_EQ(json["merge_base"], kept);
    EXPECT_LT(json["measured"][kept]["kl_mean"], json["measured"][other]["kl_mean"]) << name;
    EXPECT_EQ(json["kl_mean"], json["measured"][kept]["kl_mean"]);
    EXPECT_NE(json["measured"][kept]["loss"], json["measured"][other]["loss"]);
    for (const char* gone : {"/dequantized", "/original"})
      EXPECT_FALSE(std::filesystem::exists(dir / name + gone));
  }
  export_model(quantized, merged("alone", "dequantized"));
  const Weights chosen = written("four-bit"), alone = written("alone");
  ASSERT_EQ(chosen.size(), alone.size());
  for (const auto& [name, value] : alone) EXPECT_TRUE(at::equal(value, chosen.at(name))) << name;
}

TEST_F(MergeBase, ABaseStoredQuantizedNeedsTheOriginalNamed) {
  QuantizeOptions quantize;
  quantize.model = dir / "model";
  quantize.output = dir / "quantized";
  quantize.quantization.method = "nf4";
  quantize_model(quantize);
  TrainedModel model = trained({}, "as_stored", dir / "quantized");
  EXPECT_LT(export_model(model, merged("dequantized", "dequantized")).kl_mean, 1e-6);
  for (const char* base : {"original", "auto"})
    expect_refused([&] { export_model(model, merged("out", base)); }, "--original");
  ExportOptions options = merged("out", "original");
  options.original = dir / "quantized";
  expect_refused([&] { export_model(model, options); }, "bitsandbytes");
  options.original = dir / "model";
  export_model(model, options);
  const Weights file = written("model"), out = written("out");
  EXPECT_TRUE(at::equal(file.at("model.embed_tokens.weight").to(at::kFloat),
                        out.at("model.embed_tokens.weight")));
}

TEST_F(MergeBase, TheOriginalMayBeAGguf) {
  test::write_tiny_gguf(dir / "model.gguf");
  TrainedModel model = trained();
  ExportOptions options = merged("gguf", "original");
  options.original = dir / "model.gguf";
  export_model(model, options);
  export_model(model, merged("directory", "original"));
  const Weights one = written("gguf"), other = written("directory");
  ASSERT_EQ(one.size(), other.size());
  for (const auto& [name, value] : one) {
    // The GGUF holds the norms in fp32, the directory the same rounded to bf16.
    const bool norm = name.find("norm") != std::string::npos;
    EXPECT_TRUE(at::equal(norm ? value.to(at::kBFloat16).to(at::kFloat) : value, other.at(name)))
        << name;
  }
}

TEST_F(MergeBase, WhatAnInitialisationTookFromTheBaseIsNotAddedToTheOriginal) {
  for (const char* init : {"loftq", "pissa", "olora"}) {
    TrainedModel model = trained();
    model.base.record.init = init;
    expect_refused([&] { export_model(model, merged("out", "original")); }, init);
    expect_refused([&] { export_model(model, merged("out", "auto")); }, "dequantized");
  }
}

TEST_F(MergeBase, AnotherModelIsNotTheOriginal) {
  const auto tokenizer = data::load_tokenizer(dir / "model");
  std::filesystem::create_directory(dir / "stranger");
  exporting::write_merged(dir / "stranger", *test::tiny_model(at::kBFloat16, 2, 258), *tokenizer,
                          nullptr, dir / "model", at::kBFloat16);
  TrainedModel model = trained();
  ExportOptions options = merged("out", "original");
  options.original = dir / "stranger";
  expect_refused([&] { export_model(model, options); }, "not the model");
  auto config = nlohmann::json::parse(test::read_file(dir / "stranger/config.json"));
  config["num_hidden_layers"] = 1;
  dir.write("stranger/config.json", config.dump());
  expect_refused([&] { export_model(model, options); }, "number of layers");
}

TEST_F(MergeBase, OptionsThatDoNotGoTogetherAreRefusedBeforeAModelIsLoaded) {
  ExportOptions options = merged("out", "best");
  expect_refused([&] { check_export_options(options); }, "best");
  options.merge_base = "original";
  options.format = "adapter";
  expect_refused([&] { check_export_options(options); }, "--format merged");
  options = merged("out", "dequantized");
  options.original = dir / "model";
  expect_refused([&] { check_export_options(options); }, "--original");
}

}  // namespace
}  // namespace qlora::recipes
