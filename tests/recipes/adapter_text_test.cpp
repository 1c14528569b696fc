// Tokenizer and chat template that belong to an adapter are taken with it, wherever it lies.
#include "recipes/models/adapter_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "recipes/exports/export_model.h"
#include "recipes/models/combined_model.h"
#include "recipes/models/trained_model.h"
#include "tests/support/two_step_run.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// Another one than the tiny model's; its answers end with the same token.
constexpr const char* kOther =
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}";

class AdapterText : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_directory(dir / "model");
    write_adapter("adapter");
  }

  ModelChoice choice(const std::string& adapter = "") const {
    ModelChoice chosen;
    chosen.model = dir / "model";
    if (!adapter.empty()) chosen.adapter = dir / adapter;
    chosen.device = "cpu";
    chosen.threads = 2;
    chosen.compute_dtype = "float32";
    return chosen;
  }
  void write_adapter(const std::string& name) const {
    TrainedModel trained = open_model(choice());
    trained.recipe.lora.rank = 2;
    trained.adapters = std::make_unique<lora::AdapterSet>(
        trained.recipe.lora, trained.base.model->groups(), at::kFloat, 1);
    export_model(trained, {"adapter", dir / name, "float32"});
  }
  void replace_in(const std::string& file, const std::string& text, const std::string& by) const {
    std::string bytes = test::read_file(dir / file);
    ASSERT_NE(bytes.find(text), std::string::npos) << file;
    for (size_t at = 0; (at = bytes.find(text, at)) != std::string::npos; at += by.size())
      bytes.replace(at, text.size(), by);
    dir.write(file, bytes);
  }
  void give_own_token(const std::string& adapter) const {
    for (const char* file : {"/tokenizer.json", "/tokenizer_config.json"})
      replace_in(adapter + file, "<|im_start|>", "<|turn|>");
  }
  TrainedModel open(std::string* said = nullptr) const {
    testing::internal::CaptureStderr();
    TrainedModel trained = open_model(choice("adapter"));
    const std::string text = testing::internal::GetCapturedStderr();
    if (said) *said = text;
    return trained;
  }
  TrainedModel combine() const {
    lora::CombineOptions options;
    options.method = "cat";
    options.weights = {0.5, 0.5};
    return open_combined_model(choice("adapter"), {dir / "adapter", dir / "second"}, options);
  }

  const test::TempDir dir;
};

TEST_F(AdapterText, ItsOwnTokensAreUsedAndToldOf) {
  give_own_token("adapter");
  std::string said;
  TrainedModel trained = open(&said);
  EXPECT_EQ(trained.base.tokenizer->token_to_id("<|turn|>"), 256);
  EXPECT_TRUE(trained.base.has_adapters_tokenizer);
  EXPECT_THAT(said, HasSubstr((dir / "adapter") +
                              " has a tokenizer of its own, which is used: token 256 is "
                              "'<|turn|>', in the model's '<|im_start|>'"));
  EXPECT_THAT(trained.base.chat_template->source(), HasSubstr("<|turn|>"));
  export_model(trained, {"merged", dir / "merged", "float32"});
  const auto written = data::load_tokenizer(dir / "merged");
  EXPECT_EQ(written->token_to_id("<|turn|>"), 256);
  EXPECT_THAT(written->chat_template(), HasSubstr("<|turn|>"));
  EXPECT_EQ(open_model(choice()).base.tokenizer->token_to_id("<|turn|>"), std::nullopt);
}

TEST_F(AdapterText, TheSameTokensInOtherFilesChangeNothing) {
  const std::string file = dir / "adapter/tokenizer_config.json";
  auto config = nlohmann::json::parse(test::read_file(file));
  config["padding_side"] = "left";
  config["pad_token"] = "[PAD]";  // which becomes token 258, and the model has no row for it
  std::ofstream(file) << config.dump(4);
  std::string said;
  const TrainedModel trained = open(&said);
  EXPECT_FALSE(trained.base.has_adapters_tokenizer);
  EXPECT_THAT(said, Not(HasSubstr("tokenizer of its own")));
  EXPECT_EQ(trained.base.tokenizer->fingerprint(),
            open_model(choice()).base.tokenizer->fingerprint());
}

// An adapter of this program's names the end of a turn there; one of another program's was trained
// with that end.
TEST_F(AdapterText, AnotherEndOfTextsIsThatOfAnAdapterFromElsewhere) {
  replace_in("adapter/tokenizer_config.json", "\"eos_token\":\"<|im_end|>\"",
             "\"eos_token\":\"<|im_start|>\"");
  EXPECT_EQ(open().base.tokenizer->special_tokens().eos->text, "<|im_end|>");
  fs::remove(dir / "adapter/qlora_base.json");
  EXPECT_EQ(open().base.tokenizer->special_tokens().eos->text, "<|im_start|>");
}

TEST_F(AdapterText, OfOneThatHoldsNoTokenizerOrABrokenOneTheModelsIsUsed) {
  dir.write("adapter/tokenizer.json", "version https://git-lfs.github.com/spec/v1\n");
  std::string said;
  EXPECT_EQ(open(&said).base.tokenizer->token_to_id("<|im_start|>"), 256);
  EXPECT_THAT(said, HasSubstr("the tokenizer in " + (dir / "adapter") +
                              " cannot be read, and the model's is used"));
  fs::remove(dir / "adapter/tokenizer.json");
  EXPECT_EQ(open(&said).base.tokenizer->token_to_id("<|im_start|>"), 256);
  EXPECT_THAT(said, Not(HasSubstr("cannot be read")));
}

TEST_F(AdapterText, CombinedAdaptersThatDoNotAgreeGetTheTemplateOfTheBase) {
  write_adapter("second");
  const std::string own = open_model(choice()).base.chat_template->source();
  for (const char* name : {"second", "adapter"}) {  // the second alone has it, then the first
    fs::remove(dir / "second/chat_template.jinja");
    dir.write(std::string(name) + "/chat_template.jinja", kOther);
    testing::internal::CaptureStderr();
    EXPECT_EQ(combine().base.chat_template->source(), own) << name;
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                HasSubstr("have different chat templates; the combined adapter gets the base's"));
  }
  dir.write("second/chat_template.jinja", kOther);
  EXPECT_EQ(combine().base.chat_template->source(), kOther);
}

TEST_F(AdapterText, CombinedAdaptersThatDoNotAgreeGetTheTokenizerOfTheBase) {
  write_adapter("second");
  give_own_token("adapter");
  testing::internal::CaptureStderr();
  const TrainedModel combined = combine();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("have different tokenizers"));
  EXPECT_EQ(combined.base.tokenizer->token_to_id("<|im_start|>"), 256);
  EXPECT_FALSE(combined.base.has_adapters_tokenizer);
  give_own_token("second");
  EXPECT_EQ(combine().base.tokenizer->token_to_id("<|turn|>"), 256);
}

using CheckpointText = test::TwoStepRun;

TEST_F(CheckpointText, ItsAdapterHoldsTheTemplateThatTheRunTrainsWith) {
  recipe.data.chat_template = kOther;
  train();
  const std::string checkpoint = recipe.output.dir + "/checkpoint-000001";
  const std::string adapter = checkpoint + "/adapter";
  EXPECT_EQ(test::read_file(adapter + "/chat_template.jinja"), kOther);
  trainer::verify_checkpoint(checkpoint);
  ModelChoice choice;
  choice.model = recipe.model.path;
  choice.adapter = adapter;
  choice.device = "cpu";
  EXPECT_EQ(open_model(choice).base.chat_template->source(), kOther);
  fs::copy(adapter, dir / "copied", fs::copy_options::recursive);
  EXPECT_EQ(templates_of_adapter(dir / "copied").chat, kOther);
}

TEST_F(CheckpointText, OfAnOlderVersionItIsThatOfTheRunItLiesIn) {
  recipe.data.chat_template = kOther;
  train();
  const std::string adapter = recipe.output.dir + "/checkpoint-000001/adapter";
  fs::remove(adapter + "/chat_template.jinja");
  EXPECT_EQ(templates_of_adapter(adapter).chat, kOther);
  fs::create_directory_symlink("checkpoint-000001", recipe.output.dir + "/link");
  EXPECT_EQ(templates_of_adapter(recipe.output.dir + "/link/adapter").chat, kOther);
  fs::copy(adapter, dir / "copied", fs::copy_options::recursive);
  EXPECT_THAT(templates_of_adapter(dir / "copied").chat, IsEmpty());
}

TEST_F(CheckpointText, TheModelsOwnIsNotWritten) {
  train();
  const std::string adapter = recipe.output.dir + "/checkpoint-000001/adapter";
  for (const char* name : {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"})
    EXPECT_FALSE(fs::exists(fs::path(adapter) / name)) << name;
  EXPECT_THAT(templates_of_adapter(adapter).chat, IsEmpty());
}

// What the run began with is in its checkpoints, and the adapter that it is from may go.
TEST_F(CheckpointText, ARunKeepsTheTokenizerOfTheAdapterThatItBeganFrom) {
  train();
  const std::string first = recipe.output.dir + "/adapter";
  for (const char* name : {"/tokenizer.json", "/tokenizer_config.json"}) {
    std::string bytes = test::read_file(first + name);
    const std::string text = "<|im_start|>", by = "<|turn|>";
    for (size_t at = 0; (at = bytes.find(text, at)) != std::string::npos; at += by.size())
      bytes.replace(at, text.size(), by);
    std::ofstream(first + name) << bytes;
  }
  recipe.lora = {};
  recipe.lora.from_adapter = first;
  recipe.output.dir = dir / "next";
  log::close_file();
  train();
  const auto token_of = [&](const std::string& checkpoint) {
    ModelChoice choice;
    choice.run_dir = recipe.output.dir;
    choice.checkpoint = checkpoint;
    choice.device = "cpu";
    const TrainedModel trained = open_model(choice);
    EXPECT_THAT(trained.base.chat_template->source(), HasSubstr("<|turn|>"));
    return trained.base.tokenizer->token_to_id("<|turn|>");
  };
  EXPECT_EQ(token_of(""), 256);
  fs::remove_all(first);
  EXPECT_EQ(token_of(""), 256);
  EXPECT_EQ(token_of("checkpoint-000001"), 256);
  const std::string weights = recipe.output.dir + "/adapter/adapter_model.safetensors";
  const std::string unbroken = test::read_file(weights);
  fs::remove_all(recipe.output.dir + "/adapter");
  fs::remove_all(recipe.output.dir + "/checkpoint-000002");
  log::close_file();
  train();
  EXPECT_EQ(test::read_file(weights), unbroken);
}

}  // namespace
}  // namespace qlora::recipes
