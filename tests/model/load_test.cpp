#include "model/load.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/stop.h"
#include "io/safetensors.h"
#include "model/generate.h"
#include "quant/frozen_size.h"
#include "quant/products/product.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor logits(CausalLm& model) {
  at::NoGradGuard no_grad;
  return model.logits(model.hidden(test::tiny_input({7, 4})));
}

std::unique_ptr<CausalLm> load(const std::string& path, const std::string& method = "none",
                               const std::string& dtype = "auto") {
  const auto source = open_weights(path);
  quant::QuantizationOptions quantization;
  quantization.method = method;
  ModelOptions options;
  options.dtype = dtype;
  return load_model(*source, options, quantization, at::kCPU, at::kFloat);
}

// Changes one tensor of a directory's model.safetensors.
void replace(const std::string& directory, const std::string& name, const at::Tensor& value) {
  const std::string path = (fs::path(directory) / "model.safetensors").string();
  quant::NamedTensors tensors = quant::read_tensors(path);
  std::erase_if(tensors, [&](const auto& entry) { return entry.first == name; });
  if (value.defined()) tensors.emplace_back(name, value);
  quant::write_tensors(path, tensors);
}

TEST(Load, ItIsLeftBetweenTwoMatricesWhenAStopIsWanted) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  try {
    load(dir / "m", "nf4");
    FAIL() << "was loaded";
  } catch (const Stopped& stopped) {
    EXPECT_EQ(stopped.phase, "reading and quantizing " + dir / "m");
    EXPECT_EQ(stopped.done, 1);
  }
}

TEST(Load, ADirectoryGivesTheModelItWasWrittenFrom) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const auto model = load(dir / "m");
  const auto original = test::tiny_model(at::kBFloat16, 1, 258);
  EXPECT_TRUE(at::equal(model->embedding.weight, original->embedding.weight));
  EXPECT_EQ(model->block(0).attention().shape.kv_heads, 2);
  for (const auto& [name, tensor] : original->frozen_state())
    for (const auto& [other, loaded] : model->frozen_state())
      if (name == other) {
        EXPECT_TRUE(
            at::equal(loaded, tensor.to(loaded.dtype()).to(at::kBFloat16).to(loaded.dtype())))
            << name;
      }
}

TEST(Load, AGgufFileGivesTheLogitsOfTheDirectory) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  test::write_tiny_gguf(dir / "m.gguf");
  const std::string dtype = "bfloat16";  // the GGUF file holds the same values in F32
  EXPECT_TRUE(at::equal(logits(*load(dir / "m", "none", dtype)),
                        logits(*load(dir / "m.gguf", "none", dtype))));
  EXPECT_EQ(load(dir / "m", "nf4", dtype)->base_hash(),
            load(dir / "m.gguf", "nf4", dtype)->base_hash());
}

TEST(Load, QuantizedLayersAreFourBitAndTheRestIsNot) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const auto model = load(dir / "m", "nf4");
  EXPECT_EQ(model->layers[0].branches[0].in.layers()[0].base->format(), "nf4+dq");
  EXPECT_EQ(model->embedding.weight.scalar_type(), at::kBFloat16);
  EXPECT_NE(load(dir / "m")->base_hash(), model->base_hash());
}

std::unique_ptr<CausalLm> load_upcast(const std::string& path, const std::string& upcast,
                                      at::ScalarType compute) {
  ModelOptions options;
  options.upcast = upcast;
  quant::QuantizationOptions quantization;
  quantization.method = "nf4";
  const auto source = open_weights(path);
  return load_model(*source, options, quantization, at::kCPU, compute);
}

TEST(Load, UpcastAllHoldsEmbeddingAndHeadInFloat32AndNoValueChanges) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const auto plain = load_upcast(dir / "m", "none", at::kBFloat16);
  const auto upcast = load_upcast(dir / "m", "all", at::kBFloat16);
  EXPECT_EQ(upcast->embedding.weight.scalar_type(), at::kFloat);
  EXPECT_EQ(upcast->head.layers()[0].base->format(), "float32");
  EXPECT_TRUE(at::equal(upcast->embedding.weight, plain->embedding.weight.to(at::kFloat)));
  EXPECT_EQ(upcast->layers[0].branches[0].out.layers()[0].base->format(), "nf4+dq");
  EXPECT_EQ(upcast->base_hash(), plain->base_hash());  // adapters fit both
  EXPECT_EQ(load_upcast(dir / "m", "norms", at::kBFloat16)->embedding.weight.scalar_type(),
            at::kBFloat16);
}

TEST(Load, UpcastAllMultipliesTheHeadInFloat32) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const auto plain = load_upcast(dir / "m", "none", at::kBFloat16);
  const auto upcast = load_upcast(dir / "m", "all", at::kBFloat16);
  at::NoGradGuard no_grad;
  const at::Tensor hidden = upcast->hidden(test::tiny_input({7, 4}));
  ASSERT_EQ(hidden.scalar_type(), at::kFloat);
  // The layers compute in bf16 as before: only the last rounding is gone.
  EXPECT_TRUE(at::equal(hidden.to(at::kBFloat16), plain->hidden(test::tiny_input({7, 4}))));
  EXPECT_TRUE(
      at::equal(upcast->logits(hidden), quant::product(hidden, upcast->embedding.weight.t())));
  EXPECT_GT(
      (upcast->logits(hidden) - plain->logits(hidden.to(at::kBFloat16))).abs().max().item<float>(),
      0);
}

TEST(Load, UpcastAllGivesTheLossTheGradientOfAFloat32Head) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const auto input = test::tiny_input({9, 6});
  std::vector<int32_t> targets(input.tokens.begin() + 1, input.tokens.end());
  targets.push_back(-100);
  const auto gradients = [&](const std::string& upcast, at::ScalarType compute) {
    const auto model = load_upcast(dir / "m", upcast, compute);
    const auto adapters = test::tiny_adapters(*model, true);
    trainer::fused_cross_entropy(model->hidden(input), targets, model->head, 1.0,
                                 model->context(input))
        .backward();
    return adapters->gradients().clone();
  };
  const at::Tensor exact = gradients("none", at::kFloat);
  EXPECT_TRUE(at::equal(gradients("all", at::kFloat), exact));
  const auto error = [&](const std::string& upcast) {
    return (gradients(upcast, at::kBFloat16) - exact).norm().item<double>();
  };
  EXPECT_GT(error("all"), 0);
  EXPECT_LT(error("all"), error("none"));
}

TEST(Load, AnUpcastModelGenerates) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const auto model = load_upcast(dir / "m", "all", at::kBFloat16);
  GenerateOptions options;
  options.max_new_tokens = 4;
  const auto answers = generate(*model, {{1, 2, 3}, {4, 5}}, options);
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_FALSE(answers[0].empty());
}

TEST(Load, AMissingTensorIsNamed) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  replace(dir / "m", "model.layers.1.mlp.up_proj.weight", at::Tensor());
  EXPECT_THAT([&] { load(dir / "m"); },
              ThrowsMessage<FormatError>(HasSubstr("model.layers.1.mlp.up_proj.weight")));
}

TEST(Load, AWrongShapeIsNamedWithBothShapes) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  replace(dir / "m", "model.norm.weight", at::ones({31}));
  EXPECT_THAT([&] { load(dir / "m"); },
              ThrowsMessage<FormatError>(
                  AllOf(HasSubstr("model.norm.weight"), HasSubstr("[32]"), HasSubstr("[31]"))));
}

TEST(Load, ANanWeightIsNamedWithItsElement) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  at::Tensor weight = at::ones({32});
  weight[5] = NAN;
  replace(dir / "m", "model.norm.weight", weight);
  EXPECT_THAT(
      [&] { load(dir / "m"); },
      ThrowsMessage<FormatError>(AllOf(HasSubstr("model.norm.weight"), HasSubstr("element 5"))));
}

TEST(Load, UnknownArchitecturesAndStoredQuantizationAreRefused) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const std::string path = dir / "m/config.json";
  auto config = nlohmann::json::parse(test::read_file(path));
  config["model_type"] = "made_up";
  dir.write("m/config.json", config.dump());
  EXPECT_THAT([&] { load(dir / "m"); },
              ThrowsMessage<FormatError>(AllOf(HasSubstr("made_up"), HasSubstr("llama"))));
  config["model_type"] = "llama";
  config["quantization_config"] = {{"quant_method", "gptq"}};
  dir.write("m/config.json", config.dump());
  EXPECT_THAT([&] { load(dir / "m"); },
              ThrowsMessage<FormatError>(HasSubstr("quantization_config")));
}

TEST(Load, WhatStaysUnquantizedIsHeldAsTheFileHasIt) {
  for (const at::ScalarType stored : {at::kFloat, at::kHalf, at::kBFloat16}) {
    TempDir dir;
    test::write_tiny_directory(dir / "m");
    const std::string path = dir / "m/model.safetensors";
    quant::NamedTensors tensors = quant::read_tensors(path);
    at::Tensor embedding;
    for (auto& [name, tensor] : tensors) {
      tensor = (tensor.to(at::kFloat) * 1.001).to(stored);  // what bfloat16 would round
      if (name == "model.embed_tokens.weight") embedding = tensor;
    }
    quant::write_tensors(path, tensors);
    const auto plain = load(dir / "m"), quantized = load(dir / "m", "nf4");
    for (const auto* model : {plain.get(), quantized.get()}) {
      EXPECT_EQ(model->embedding.weight.scalar_type(), stored);
      EXPECT_TRUE(at::equal(model->embedding.weight, embedding));
    }
    EXPECT_EQ(plain->layers[0].branches[0].out.layers()[0].base->format(),
              quant::dense_format(stored));
    ModelOptions narrow;
    narrow.dtype = "bfloat16";
    const auto asked = load_model(*open_weights(dir / "m"), narrow, {}, at::kCPU, at::kFloat);
    EXPECT_EQ(asked->embedding.weight.scalar_type(), at::kBFloat16);
  }
}

TEST(Load, AFileOfTwoTypesIsHeldInFloat32) {
  TempDir dir;
  test::write_tiny_directory(dir / "m");
  const std::string path = dir / "m/model.safetensors";
  quant::NamedTensors tensors = quant::read_tensors(path);
  for (auto& [name, tensor] : tensors)
    if (name.ends_with("q_proj.weight")) tensor = tensor.to(at::kHalf);
  quant::write_tensors(path, tensors);
  EXPECT_EQ(open_weights(dir / "m")->dtype(), at::kFloat);
}

// What a GGUF file has for `scaled` beside `plain`.
std::vector<float> divisors_of(const RopeConfig& plain, const RopeConfig& scaled, int64_t width) {
  const auto base = inverse_frequencies(plain, width), target = inverse_frequencies(scaled, width);
  std::vector<float> divisors;
  for (size_t i = 0; i < base.size(); ++i) divisors.push_back(base[i] / target[i]);
  return divisors;
}

TEST(Load, Llama3ScalingWithOtherNumbersIsFittedToItsDivisors) {
  RopeConfig rope;
  rope.theta = 10000;
  RopeConfig scaled = rope;
  scaled.type = "llama3";
  scaled.factor = 4;
  scaled.low_freq_factor = 2;  // as 1 and 8 of 32 positions
  scaled.high_freq_factor = 16;
  scaled.original_max_positions = 64;
  const RopeConfig found = recognise_llama3(rope, divisors_of(rope, scaled, 32));
  EXPECT_EQ(found.type, "llama3");
  EXPECT_NEAR(found.factor, 4, 1e-4);
  EXPECT_EQ(found.low_freq_factor, 1);
  EXPECT_EQ(found.high_freq_factor, 8);
  EXPECT_EQ(found.original_max_positions, 32);
  const auto again = inverse_frequencies(found, 32), target = inverse_frequencies(scaled, 32);
  for (size_t i = 0; i < target.size(); ++i) EXPECT_NEAR(again[i] / target[i], 1, 1e-6) << i;
}

// Of eight frequencies one lies between the ends of the scaling.
TEST(Load, Llama3ScalingIsFittedToOneFrequencyWhereHighIsFourTimesLow) {
  RopeConfig rope;
  rope.theta = 500000;
  RopeConfig scaled = rope;
  scaled.type = "llama3";
  scaled.factor = 8;
  scaled.original_max_positions = 64;
  const RopeConfig found = recognise_llama3(rope, divisors_of(rope, scaled, 16));
  EXPECT_EQ(found.type, "llama3");
  EXPECT_EQ(found.original_max_positions, 64);
  EXPECT_EQ(found.high_freq_factor, 4);
}

TEST(Load, Llama3ScalingIsRecognisedByItsDivisors) {
  RopeConfig rope;
  rope.theta = 500000;
  RopeConfig scaled = rope;
  scaled.type = "llama3";
  scaled.factor = 32;
  std::vector<float> divisors = divisors_of(rope, scaled, 64);
  EXPECT_EQ(recognise_llama3(rope, divisors).type, "llama3");
  EXPECT_NEAR(recognise_llama3(rope, divisors).factor, 32, 1e-4);
  divisors[3] = 5;
  EXPECT_EQ(recognise_llama3(rope, divisors).divisors, divisors);
}

TEST(Load, DivisorsThatAreNoScalingOfLlama3sLeaveTheFilesOwnScalingAsItIs) {
  RopeConfig rope;
  rope.type = "linear";
  rope.factor = 4;
  const std::vector<float> divisors = {1, 2, 1, 3};
  const RopeConfig found = recognise_llama3(rope, divisors);
  EXPECT_EQ(found.type, "linear");
  EXPECT_EQ(found.factor, 4);
  EXPECT_EQ(found.divisors, divisors);
}

}  // namespace
}  // namespace qlora::model
