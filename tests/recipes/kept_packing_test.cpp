// What cannot be done with weights that stay packed as GGUF files and other tools have them is
// refused before anything is loaded, at its key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/error.h"
#include "recipes/before_loading.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

class KeptPacking : public ::testing::Test {
 protected:
  KeptPacking() : recipe_(test::tiny_recipe(dir_.path())) { recipe_.quantization = {}; }

  void take_gguf() {
    recipe_.model.path = dir_ / "blocks.gguf";
    test::write_made_gguf(recipe_.model.path, R"({
      "model_type": "llama", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 96,
      "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
      "tie_word_embeddings": false})");
    const std::string text = R"({"text": "some words"})";
    recipe_.data.train = {{dir_.write("text.jsonl", text + "\n" + text + "\n"), "text", {}}};
    recipe_.data.eval.clear();
  }
  void take(const std::string& method) {
    QuantizeOptions options;
    options.model = recipe_.model.path;
    options.output = dir_ / method;
    options.quantization.method = method;
    options.quantization.skip_modules = {"lm_head", "down_proj"};
    options.gptq.group_size = options.hqq.group_size = 16;
    options.calibration.data = recipe_.data.train.front();
    options.device = "cpu";
    quantize_model(options);
    recipe_.model.path = options.output;
  }
  void expect_refused(const ::testing::Matcher<std::string>& sentence) {
    EXPECT_THAT([&] { check_before_planning(recipe_); }, ThrowsMessage<ConfigError>(sentence));
    EXPECT_THAT([&] { finetune(recipe_, std::atomic<bool>(false)); },
                ThrowsMessage<ConfigError>(sentence));
    EXPECT_FALSE(std::filesystem::exists(recipe_.output.dir + "/recipe.resolved.yaml"));
  }

  const test::TempDir dir_;
  Recipe recipe_;
};

TEST_F(KeptPacking, NoBaseIsWrittenOfBlocksOfAGgufFile) {
  take_gguf();
  recipe_.output.save_base = true;
  expect_refused(AllOf(HasSubstr("output.save_base: the run would write its base in bitsandbytes' "
                                 "layout, which has no place for model.layers.0."),
                       HasSubstr(", stored as Q8_0; name a quantization.method, or leave it out")));
  for (const char* method : {"nf4", "none"}) {
    recipe_.quantization.method = method;
    EXPECT_NO_THROW(check_before_planning(recipe_)) << method;
  }
}

TEST_F(KeptPacking, NorOfWhatOtherToolsPacked) {
  const std::string model = recipe_.model.path;
  recipe_.output.save_base = true;
  for (const auto& [method, name] : {std::pair{"gptq", "GPTQ"}, {"hqq", "HQQ"}}) {
    recipe_.model.path = model;
    take(method);
    expect_refused(AllOf(HasSubstr("output.save_base: the run would write its base"),
                         HasSubstr(std::string(", stored as ") + name),
                         Not(HasSubstr("name a quantization.method"))));
  }
  recipe_.model.path = model;
  take("nf4");
  EXPECT_NO_THROW(check_before_planning(recipe_));
}

TEST_F(KeptPacking, NorOfExpertsInMxfp4) {
  recipe_.model.path = dir_ / "gpt-oss";
  recipe_.lora.dropout = 0;  // there is none for experts
  test::write_mxfp4_directory(recipe_.model.path);
  recipe_.output.save_base = true;
  expect_refused(
      HasSubstr("which has no place for model.layers.0.mlp.experts.0.gate_up_proj, stored as "
                "MXFP4; name a "));
  recipe_.quantization.method = "nf4";
  EXPECT_NO_THROW(check_before_planning(recipe_));
}

// Its own targets lie there in 16 bits, and other layers do not.
TEST_F(KeptPacking, NorForAnInitThatChangesIt) {
  take("gptq");
  recipe_.lora.targets = {"down_proj"};
  recipe_.lora.init = "pissa";
  expect_refused(HasSubstr("lora.init: the run would write its base in bitsandbytes' layout"));
  recipe_.lora.init = "default";
  EXPECT_NO_THROW(check_before_planning(recipe_));
}

TEST_F(KeptPacking, APackedHeadStaysOnTheDevice) {
  take_gguf();
  recipe_.model.device_map = {{"lm_head", "disk"}};
  expect_refused(HasSubstr(
      "model.device_map.lm_head: the file holds the head as Q8_0, which is decoded as a whole"));
  recipe_.quantization.method = "nf4";
  EXPECT_NO_THROW(check_before_planning(recipe_));
}

}  // namespace
}  // namespace qlora::recipes
