// Runs that write the base that they made of a GGUF file: what such files have in float32 beside
// matrices of 16 bits (norms, biases, routers, learned positions) is read again as it was trained
// on, and lies among the weights in the type that other tools can compute with.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/gguf.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {

constexpr int64_t kWidth = 64;

// Norms of ones become such that no type of 16 bits holds.
void make_norms_inexact(const std::string& gguf) {
  std::string bytes = test::read_file(gguf);
  const std::vector<float> ones(kWidth, 1), others(kWidth, 1.0003F);
  const std::string before(reinterpret_cast<const char*>(ones.data()), 4 * kWidth),
      after(reinterpret_cast<const char*>(others.data()), 4 * kWidth);
  size_t place = 0;
  int norms = 0;
  for (; (place = bytes.find(before, place)) != std::string::npos; ++norms)
    bytes.replace(place, after.size(), after);
  ASSERT_GE(norms, 5) << gguf;
  io::write_file_atomically(gguf, bytes);
}

const std::vector<std::pair<std::string, std::string>>& families() {
  static const std::vector<std::pair<std::string, std::string>> all = {
      {"llama", R"({"model_type": "llama", "vocab_size": 258, "hidden_size": 64,
          "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
          "num_hidden_layers": 2, "tie_word_embeddings": false})"},
      {"qwen2", R"({"model_type": "qwen2", "vocab_size": 258, "hidden_size": 64,
          "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
          "num_hidden_layers": 2, "tie_word_embeddings": true})"},
      {"gpt2", R"({"model_type": "gpt2", "vocab_size": 258, "n_embd": 64, "n_layer": 2,
          "n_head": 4, "n_positions": 256})"},
      {"mixtral", R"({"model_type": "mixtral", "vocab_size": 258, "hidden_size": 64,
          "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
          "num_hidden_layers": 2, "num_local_experts": 3, "num_experts_per_tok": 2,
          "tie_word_embeddings": false})"}};
  return all;
}

bool is_part_of_packed(const std::string& name) {
  constexpr const char* kParts[] = {".SCB", ".scales", ".scale", ".zero"};
  return name.find(".weight.") != std::string::npos ||
         std::ranges::any_of(kParts, [&name](const char* part) { return name.ends_with(part); });
}

// What other tools load of a directory is of one type, and what is not so lies beside it, with the
// numbers of which those are the rounded ones. There are only the files that there shall be.
void expect_one_type(const std::string& directory) {
  const auto config = nlohmann::json::parse(test::read_file(directory + "/config.json"));
  ASSERT_NE(config.at("torch_dtype"), "float32") << directory;
  EXPECT_EQ(config.at("qlora_float32_beside"), config.at("torch_dtype")) << directory;
  const at::ScalarType type = config.at("torch_dtype") == "float16" ? at::kHalf : at::kBFloat16;
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, tensor] : quant::read_tensors(directory + "/model.safetensors")) {
    weights[name] = tensor;
    if (tensor.is_floating_point() && !is_part_of_packed(name)) {
      EXPECT_EQ(tensor.scalar_type(), type) << directory << " " << name;
    }
  }
  const auto beside = quant::read_tensors(directory + "/float32_tensors.qlora");
  EXPECT_GE(beside.size(), 5U) << directory;
  for (const auto& [name, tensor] : beside) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat) << directory << " " << name;
    ASSERT_TRUE(weights.contains(name)) << directory << " " << name;
    EXPECT_TRUE(at::equal(tensor.to(type), weights.at(name))) << directory << " " << name;
  }
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    EXPECT_NE(entry.path().extension(), ".scratch") << entry.path();
}

class SavedGgufBase : public ::testing::Test {
 protected:
  SavedGgufBase() : recipe_(test::tiny_recipe(dir_.path())) {
    const std::string text = R"({"text": "some words"})";
    recipe_.data.train = {{dir_.write("text.jsonl", text + "\n" + text + "\n"), "text", {}}};
    recipe_.data.eval.clear();
    recipe_.lora.dropout = 0;  // there is none for experts
    recipe_.optim.schedule = "constant";
    recipe_.optim.warmup_ratio = 0;
    recipe_.train.max_steps = 4;
    recipe_.train.threads = 1;
  }

  void choose(const std::pair<std::string, std::string>& family) {
    recipe_.model.path = dir_ / (family.first + ".gguf");
    test::write_made_gguf(recipe_.model.path, family.second);
    make_norms_inexact(recipe_.model.path);
  }
  static void train(const Recipe& recipe) { finetune(recipe, std::atomic<bool>(false)); }
  static quant::NamedTensors adapter(const std::string& run) {
    return quant::read_tensors(run + "/adapter/adapter_model.safetensors");
  }

  // Opened by its directory, by base and adapter, and stopped and gone on with.
  void expect_usable(const std::string& name) {
    Recipe whole = recipe_, parts = recipe_;
    whole.output.dir = dir_ / (name + "-whole");
    parts.output.dir = dir_ / (name + "-parts");
    train(whole);
    const std::string run = whole.output.dir;
    expect_one_type(run + "/base");
    const auto record = lora::read_adapter_base(run + "/adapter");
    ASSERT_TRUE(record.has_value()) << name;
    ModelChoice of_run, by_hand;
    of_run.run_dir = run;
    by_hand.model = run + "/base";
    by_hand.adapter = run + "/adapter";
    for (const ModelChoice& choice : {of_run, by_hand})
      EXPECT_EQ(open_model(choice).base.record.hash, record->hash) << name;
    parts.train.max_steps = 2;
    train(parts);
    parts.train.max_steps = whole.train.max_steps;
    parts.train.on_extend = "rescale";
    train(parts);
    const auto one = adapter(run), two = adapter(parts.output.dir);
    ASSERT_EQ(one.size(), two.size()) << name;
    for (size_t i = 0; i < one.size(); ++i)
      EXPECT_TRUE(at::equal(one[i].second, two[i].second)) << name << " " << one[i].first;
  }

  const test::TempDir dir_;
  Recipe recipe_;
};

TEST_F(SavedGgufBase, WhatWasTrainedOnIsReadAgain) {
  for (const auto& family : families()) {
    choose(family);
    for (const char* dtype : {"auto", "float16"}) {
      recipe_.model.dtype = dtype;
      recipe_.lora.init = "default";
      recipe_.output.save_base = true;
      expect_usable(family.first + "-saved-" + dtype);
    }
  }
}

TEST_F(SavedGgufBase, AlsoWhereTheInitChangesIt) {
  recipe_.model.dtype = "bfloat16";
  const std::pair<const char*, const char*> inits[] = {
      {"pissa", "nf4"}, {"olora", "int8"}, {"loftq", "fp4"}, {"pissa", "none"}};
  for (size_t i = 0; i < families().size(); ++i) {
    choose(families()[i]);
    recipe_.quantization = {};
    std::tie(recipe_.lora.init, recipe_.quantization.method) = inits[i];
    expect_usable(families()[i].first + "-" + recipe_.lora.init);
  }
}

// And a base that was saved unchanged is that of the GGUF file.
TEST_F(SavedGgufBase, ItsAdapterFitsTheFileItselfToo) {
  choose(families().front());
  recipe_.model.dtype = "bfloat16";
  recipe_.output.save_base = true;
  train(recipe_);
  const std::string run = recipe_.output.dir;
  const auto record = lora::read_adapter_base(run + "/adapter");
  ModelChoice choice;
  choice.model = recipe_.model.path;
  choice.adapter = run + "/adapter";
  EXPECT_EQ(open_model(choice).base.record.hash, record->hash);
}

TEST_F(SavedGgufBase, NormsLieInFloat32InAFileBesideThoseOf16Bits) {
  choose(families().front());
  recipe_.model.dtype = "bfloat16";
  recipe_.output.save_base = true;
  train(recipe_);
  const std::string base = recipe_.output.dir + "/base", file = base + "/config.json";
  const auto beside = quant::read_tensors(base + "/float32_tensors.qlora");
  EXPECT_EQ(beside.size(), 5U);
  for (const auto& [name, tensor] : beside) {
    EXPECT_TRUE(name.ends_with("norm.weight")) << name;
    EXPECT_TRUE(at::equal(tensor, at::full({kWidth}, 1.0003F))) << name;
  }
  const auto type_of_norm = [&] {
    const auto source = model::open_weights(base);
    EXPECT_EQ(source->dtype_of("model.embed_tokens.weight", at::kBFloat16), at::kBFloat16);
    return source->dtype_of("model.norm.weight", at::kBFloat16);
  };
  testing::internal::CaptureStderr();
  EXPECT_EQ(model::open_weights(base)->dtype(), at::kBFloat16);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");  // the key is known
  EXPECT_EQ(type_of_norm(), at::kFloat);
  EXPECT_TRUE(at::equal(model::open_weights(base)->read("model.norm.weight", {kWidth}, at::kFloat),
                        at::full({kWidth}, 1.0003F)));
  EXPECT_EQ(model::open_weights(base)->stored("model.norm.weight")->dtype, io::DType::kF32);
  // A tool that loads it in another type and saves it again keeps the key, and changes the type.
  auto config = nlohmann::ordered_json::parse(test::read_file(file));
  config["dtype"] = "float32";
  io::write_file_atomically(file, config.dump());
  EXPECT_EQ(type_of_norm(), at::kBFloat16);
  EXPECT_TRUE(at::equal(model::open_weights(base)->read("model.norm.weight", {kWidth}, at::kFloat),
                        at::full({kWidth}, 1.0F)));
}

TEST_F(SavedGgufBase, IsRefusedWhereItsFilesAreNoLongerOfOneBase) {
  choose(families().front());
  recipe_.model.dtype = "bfloat16";
  recipe_.output.save_base = true;
  train(recipe_);
  const std::string base = recipe_.output.dir + "/base", weights = base + "/model.safetensors",
                    beside = base + "/float32_tensors.qlora", config = base + "/config.json";
  const auto message = [&]() -> std::string {
    try {
      model::open_weights(base)->read("model.norm.weight", {kWidth}, at::kFloat);
      return "";
    } catch (const FormatError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(message(), "");
  const auto tensors = quant::read_tensors(weights), exact = quant::read_tensors(beside);
  const auto with = [](quant::NamedTensors all, const at::Tensor& norm) {
    for (auto& [name, tensor] : all)
      if (name == "model.norm.weight") tensor = norm;
    return all;
  };
  quant::write_tensors(weights, with(tensors, at::full({kWidth}, 2, at::kBFloat16)));
  EXPECT_THAT(message(), ::testing::AllOf(::testing::HasSubstr(beside + ": the tensor model.norm"),
                                          ::testing::HasSubstr("rounded is not that of")));
  quant::write_tensors(weights, tensors);
  quant::write_tensors(beside, with(exact, at::ones({2 * kWidth})));
  EXPECT_THAT(message(), ::testing::HasSubstr("with the same shape, rounded"));
  std::filesystem::remove(beside);
  EXPECT_THAT(message(), ::testing::HasSubstr(beside + " is not there, and config.json says"));
  // As the message says.
  auto without = nlohmann::ordered_json::parse(test::read_file(config));
  without.erase("qlora_float32_beside");
  io::write_file_atomically(config, without.dump());
  EXPECT_EQ(message(), "");
}

TEST_F(SavedGgufBase, AMergedModelOfItIsOfOneType) {
  choose(families().front());
  recipe_.model.dtype = "bfloat16";
  recipe_.lora.init = "pissa";
  train(recipe_);
  ModelChoice choice;
  choice.run_dir = recipe_.output.dir;
  TrainedModel trained = open_model(choice);
  export_model(trained, {"merged", dir_ / "merged", "bfloat16"});
  for (const auto& [name, tensor] : quant::read_tensors(dir_ / "merged/model.safetensors"))
    EXPECT_EQ(tensor.scalar_type(), at::kBFloat16) << name;
  EXPECT_THAT(test::read_file(dir_ / "merged/config.json"),
              ::testing::Not(::testing::HasSubstr("qlora_float32_beside")));
}

TEST_F(SavedGgufBase, QuantizingAGgufFileKeepsThemToo) {
  for (const auto& family : families()) {
    choose(family);
    for (const char* method : {"nf4", "int8", "hqq"}) {
      QuantizeOptions options;
      options.model = recipe_.model.path;
      options.output = dir_ / (family.first + "-" + method);
      options.dtype = "bfloat16";
      options.quantization.method = method;
      options.hqq.group_size = 32;
      EXPECT_NO_THROW(quantize_model(options)) << options.output;
      expect_one_type(options.output);
    }
  }
}

}  // namespace
}  // namespace qlora::recipes
