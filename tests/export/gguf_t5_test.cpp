// Exports of T5 to GGUF.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/gguf.h"
#include "model/gguf_description.h"
#include "model/load.h"
#include "recipes/exports/export_gguf.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

nlohmann::json config(bool is_flan) {
  return {{"model_type", "t5"},
          {"vocab_size", 258},
          {"d_model", 32},
          {"d_kv", 8},
          {"d_ff", 64},
          {"num_layers", 1},
          {"num_decoder_layers", 2},
          {"num_heads", 4},
          {"pad_token_id", 0},
          {"decoder_start_token_id", 0},
          {"eos_token_id", 1},
          {"feed_forward_proj", is_flan ? "gated-gelu" : "relu"},
          {"tie_word_embeddings", !is_flan}};
}

class GgufOfT5 : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    test::write_made_directory(dir / "model", config(GetParam()).dump());
    trained = open(dir / "model");
    lora::LoraOptions options;
    options.rank = 4;
    options.alpha = 8;
    trained.recipe.lora = options;
    trained.adapters = std::make_unique<lora::AdapterSet>(options, trained.base.model->parts(),
                                                          trained.base.model->compute_dtype(), 1);
    at::NoGradGuard no_grad;
    at::Tensor values = trained.adapters->values();
    values.add_(at::sin(at::arange(values.numel(), at::kFloat)), 0.05);
    trained.adapters->publish();
  }
  static TrainedModel open(const std::string& path) {
    ModelChoice chosen;
    chosen.compute_dtype = "float32";
    chosen.model = path;
    chosen.device = "cpu";
    chosen.threads = 2;
    return open_model(chosen);
  }
  ExportOptions options(const std::string& type, const std::string& format = "gguf") const {
    ExportOptions options{.format = format, .output = dir / "out"};
    options.type = type;
    return options;
  }

  TempDir dir;
  TrainedModel trained;
};

TEST_P(GgufOfT5, AFileIsTheTrainedModel) {
  // Sums of fp32 products in another order.
  EXPECT_LT(export_model(trained, options("f32")).largest_difference, 1e-4);
}

TEST_P(GgufOfT5, ItSaysWhatLlamaCppsConverterSays) {
  export_model(trained, options("f32"));
  const io::GgufFile file(dir / "out/model.gguf");
  const std::pair<const char*, int64_t> integers[] = {
      {"context_length", 512},       {"embedding_length", 32},
      {"feed_forward_length", 64},   {"block_count", 1},
      {"decoder_block_count", 2},    {"decoder_start_token_id", 0},
      {"attention.head_count", 4},   {"attention.key_length", 8},
      {"attention.value_length", 8}, {"attention.relative_buckets_count", 32}};
  EXPECT_EQ(file.text("general.architecture"), "t5");
  for (const auto& [key, value] : integers)
    EXPECT_EQ(file.integer(std::string("t5.") + key, 0, 1 << 20), value) << key;
  for (const char* key : {"t5.attention.layer_norm_epsilon", "t5.attention.layer_norm_rms_epsilon"})
    EXPECT_EQ(file.number(key), 1e-6) << key;
  EXPECT_EQ(file.find("enc.blk.0.ffn_gate.weight") != nullptr, GetParam());
}

// llama.cpp scales nothing.
TEST_P(GgufOfT5, ATiedHeadIsWrittenScaled) {
  export_model(trained, options("f32"));
  const io::GgufFile file(dir / "out/model.gguf");
  const auto values = [&file](const char* name) {
    const io::TensorView* view = file.find(name);
    EXPECT_NE(view, nullptr) << name;
    return at::from_blob(const_cast<std::byte*>(view->bytes.data()), view->shape, at::kFloat)
        .clone();
  };
  const at::Tensor head = values("output.weight"), embedding = values("token_embd.weight");
  const bool is_scaled = at::allclose(head, embedding * (1 / std::sqrt(32.0)), 1e-6, 0);
  EXPECT_EQ(is_scaled, !GetParam());
}

TEST_P(GgufOfT5, BlocksAreReadAsTheyAreStored) {
  EXPECT_LT(export_model(trained, options("q8_0")).kl_mean, 0.1);
  quant::QuantizationOptions as_stored;
  as_stored.method = "as_stored";
  const auto source = model::open_weights(dir / "out/model.gguf");
  EXPECT_EQ(source->dtype(), at::kBFloat16);
  const auto model = model::load_model(*source, {}, as_stored, at::kCPU, at::kFloat);
  for (const lora::LinearGroup* group : std::as_const(*model).groups())
    for (const lora::LoraLinear& linear : group->layers())
      EXPECT_EQ(linear.base->format(), "Q8_0") << linear.name;
}

TEST_P(GgufOfT5, AnAdapterIsReadAgainBitForBit) {
  EXPECT_EQ(export_model(trained, options("", "gguf-lora")).largest_difference, 0.0);
  const io::GgufFile file(dir / "out/adapter.gguf");
  EXPECT_EQ(file.text("general.architecture"), "t5");
  EXPECT_NE(file.find("enc.blk.0.attn_q.weight.lora_a"), nullptr);
  EXPECT_NE(file.find("dec.blk.1.cross_attn_k.weight.lora_b"), nullptr);
}

TEST_P(GgufOfT5, AFileIsABaseOfItsOwn) {
  export_model(trained, options("f32"));
  fs::rename(dir / "out/model.gguf", dir / "base.gguf");
  fs::remove_all(dir / "out");
  TrainedModel again = open(dir / "base.gguf");
  EXPECT_LT(export_model(again, options("f32")).largest_difference, 1e-4);
  const io::GgufFile wanted(dir / "base.gguf"), found(dir / "out/model.gguf");
  ASSERT_EQ(found.tensors().size(), wanted.tensors().size());
  for (const io::TensorView& tensor : wanted.tensors())
    EXPECT_TRUE(std::ranges::equal(found.find(tensor.name)->bytes, tensor.bytes)) << tensor.name;
}

INSTANTIATE_TEST_SUITE_P(Both, GgufOfT5, testing::Bool(),
                         [](const auto& is_flan) { return is_flan.param ? "Flan" : "T5"; });

TEST(GgufOfOtherT5, WhatAFileCannotSayIsRefusedByName) {
  const auto refused = [](const nlohmann::json& changes, const char* what) {
    nlohmann::json changed = config(true);
    changed.update(changes);
    EXPECT_THAT([&] { model::describe_for_gguf(test::described(changed)); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr("t5"), HasSubstr(what))));
  };
  refused({{"feed_forward_proj", "gated-silu"}}, "the activation");
  refused({{"relative_attention_max_distance", 64}}, "the largest distance");
  refused({{"model_type", "mt5"}, {"tie_word_embeddings", true}}, "the multiplier of logits");
  EXPECT_NO_THROW(model::describe_for_gguf(test::described(config(true))));
}

}  // namespace
}  // namespace qlora::recipes
