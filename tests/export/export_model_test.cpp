// An export as `qlora export` makes it: complete or absent, and never over something else.
#include "recipes/exports/export_model.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/stop.h"
#include "data/chat_template.h"
#include "data/tokenizers/tokenizer_config.h"
#include "export/adapter.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/combined_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using ::testing::HasSubstr;

std::map<std::string, std::string> contents(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file()) files[entry.path().string()] = test::read_file(entry.path());
  return files;
}

class Export : public testing::Test {
 protected:
  // The tiny base with an adapter whose B is not zero.
  void SetUp() override {
    test::write_tiny_directory(dir / "model");
    open_trained();
  }
  void open_trained() {
    trained.adapters.reset();
    trained = open_model(choice());
    lora::LoraOptions options;
    options.rank = 4;
    options.alpha = 8;
    trained.recipe.lora = options;
    trained.adapters = test::tiny_adapters(*trained.base.model, true);
  }
  ModelChoice choice(const std::string& adapter = "") const {
    ModelChoice chosen;
    chosen.compute_dtype = "bfloat16";  // products read copies of the masters
    chosen.model = dir / "model";
    chosen.adapter = adapter;
    chosen.device = "cpu";
    chosen.threads = 2;
    return chosen;
  }
  // Nothing but the base: neither the target nor a partial directory.
  void expect_nothing_was_left() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir.path()))
      names.push_back(entry.path().filename());
    EXPECT_THAT(names, testing::ElementsAre("model"));
  }

  TempDir dir;
  TrainedModel trained;
};

TEST_F(Export, AnAdapterOpenedAgainHasTheSameTensors) {
  export_model(trained, {"adapter", dir / "out", "bfloat16"});
  const TrainedModel again = open_model(choice(dir / "out"));
  EXPECT_TRUE(at::equal(again.adapters->values(), trained.adapters->values()));
}

// The tiny model ends its turns with <|im_end|>; this template with <|im_start|>, which its files
// do not know as an end.
constexpr const char* kOtherTemplate =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_start|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}";

nlohmann::json json_file(const std::string& path) {
  return nlohmann::json::parse(test::read_file(path));
}

void expect_speaks_as_trained(const std::string& directory) {
  EXPECT_EQ(test::read_file(directory + "/chat_template.jinja"), kOtherTemplate);
  const auto tokenizer = data::load_tokenizer(directory);
  EXPECT_EQ(tokenizer->chat_template(), kOtherTemplate);
  EXPECT_EQ(tokenizer->special_tokens().end_of_generation, (std::vector<int32_t>{256, 257}));
  EXPECT_EQ(json_file(directory + "/generation_config.json")["eos_token_id"],
            (nlohmann::json{256, 257}));
  const auto config = json_file(directory + "/tokenizer_config.json");
  EXPECT_FALSE(config.contains("chat_template"));
  EXPECT_EQ(config["eos_token"], "<|im_start|>");
}

TEST_F(Export, HoldsTheTemplateThatWasTrainedWithAndItsEndOfTurn) {
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(kOtherTemplate);
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  expect_speaks_as_trained(dir / "adapter");
  export_model(trained, {.format = "merged", .output = dir / "merged"});
  expect_speaks_as_trained(dir / "merged");
}

TEST_F(Export, AnAdapterBringsItsTemplateToTheBase) {
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(kOtherTemplate);
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  EXPECT_EQ(open_model(choice(dir / "adapter")).base.chat_template->source(), kOtherTemplate);
  EXPECT_NE(open_model(choice()).base.chat_template->source(), kOtherTemplate);
}

constexpr const char* kToolTemplate = "{{ tools | length }}";

TEST_F(Export, BothTemplatesOfAModelComeBack) {
  const std::string texts[] = {kOtherTemplate, kToolTemplate};
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(texts[0], "t", texts[1]);
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  EXPECT_EQ(data::chat_templates_in(dir / "adapter"), (data::ModelTemplates{texts[0], texts[1]}));
  EXPECT_EQ(test::read_file(dir / "adapter/additional_chat_templates/tool_use.jinja"), texts[1]);
  const TrainedModel again = open_model(choice(dir / "adapter"));
  EXPECT_EQ(again.base.chat_template->source(), texts[0]);
  EXPECT_EQ(again.base.chat_template->tool_use_source(), texts[1]);
  lora::CombineOptions one;
  one.weights = {1};
  const TrainedModel combined = open_combined_model(choice(), {dir / "adapter"}, one);
  EXPECT_EQ(combined.base.chat_template->tool_use_source(), texts[1]);
}

TEST_F(Export, NamedTemplatesOfTheModelStayWhereItsFilesHaveThem) {
  const std::string config_path = dir / "model/tokenizer_config.json";
  nlohmann::json config = json_file(config_path);
  const std::string own = config["chat_template"];
  config["chat_template"] = {{{"name", "default"}, {"template", own}},
                             {{"name", "tool_use"}, {"template", kToolTemplate}},
                             {{"name", "rag"}, {"template", "{{ 3 }}"}}};
  dir.write("model/tokenizer_config.json", config.dump());
  open_trained();
  export_model(trained, {.format = "merged", .output = dir / "merged"});
  EXPECT_EQ(json_file(dir / "merged/tokenizer_config.json"), config);
  EXPECT_FALSE(fs::exists(dir / "merged/chat_template.jinja"));
  // One that a recipe names stands for both.
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(own);
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  EXPECT_EQ(data::chat_templates_in(dir / "adapter"), (data::ModelTemplates{own, ""}));
}

TEST_F(Export, ATemplateForToolsAloneInAFileGetsTheOtherBesideIt) {
  dir.write("model/additional_chat_templates/tool_use.jinja", kToolTemplate);
  open_trained();
  const std::string own = trained.base.chat_template->source();
  EXPECT_EQ(trained.base.chat_template->tool_use_source(), kToolTemplate);
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  EXPECT_EQ(test::read_file(dir / "adapter/chat_template.jinja"), own);
  EXPECT_EQ(test::read_file(dir / "adapter/additional_chat_templates/tool_use.jinja"),
            kToolTemplate);
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(own);
  export_model(trained, {.format = "adapter", .output = dir / "single"});
  EXPECT_FALSE(fs::exists(dir / "single/additional_chat_templates"));
}

TEST_F(Export, ATemplateThatWritesEosTokenKeepsIt) {
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(
      std::string(kOtherTemplate) + "{# eos_token #}{{ '' if eos_token else '' }}");
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  EXPECT_EQ(json_file(dir / "adapter/tokenizer_config.json")["eos_token"], "<|im_end|>");
  EXPECT_EQ(json_file(dir / "adapter/generation_config.json")["eos_token_id"],
            (nlohmann::json{256, 257}));
}

TEST_F(Export, TheModelsOwnTemplateLeavesItsFilesAsTheyWere) {
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    EXPECT_EQ(test::read_file(dir / ("adapter/" + std::string(name))),
              test::read_file(dir / ("model/" + std::string(name))));
  EXPECT_FALSE(fs::exists(dir / "adapter/generation_config.json"));
}

TEST_F(Export, AGgufBasesExportSpeaksAsTrainedToo) {
  test::write_tiny_gguf(dir / "base.gguf");
  ModelChoice chosen = choice();
  chosen.model = dir / "base.gguf";
  trained = open_model(chosen);
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(kOtherTemplate);
  export_model(trained, {.format = "merged", .output = dir / "merged"});
  EXPECT_EQ(test::read_file(dir / "merged/chat_template.jinja"), kOtherTemplate);
  EXPECT_THAT(json_file(dir / "merged/generation_config.json")["eos_token_id"],
              testing::Contains(256));
}

TEST_F(Export, OneThatIsStoppedLeavesNothing) {
  for (const char* format : {"adapter", "merged", "gguf", "gguf-lora"}) {
    const std::atomic<bool> stop = true;
    const ObeyStop obey(stop);
    EXPECT_THROW(export_model(trained, {format, dir / "out", "bfloat16"}), Stopped);
    expect_nothing_was_left();
  }
}

TEST_F(Export, ADirectoryWithContentIsRefusedAndLeftAsItWas) {
  dir.write("out/thesis.txt", "precious");
  const auto before = contents(dir.path());
  for (const char* format : {"adapter", "merged"}) {
    try {
      export_model(trained, {format, dir / "out", "bfloat16"});
      ADD_FAILURE() << format << " was written";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(dir / "out"));
    }
    EXPECT_EQ(contents(dir.path()), before) << format;
  }
}

TEST_F(Export, ShardsAreAsLargeAsAsked) {
  ExportOptions options{.format = "merged", .output = dir / "out"};
  options.max_shard_size = "0.02MB";
  export_model(trained, options);
  const auto index = json_file(dir / "out/model.safetensors.index.json");
  EXPECT_GT(index["weight_map"].size(), 10u);
  EXPECT_FALSE(fs::exists(dir / "out/model.safetensors"));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) shards.insert(shard);
  EXPECT_GT(shards.size(), 1u);
  for (const std::string& shard : shards)  // the largest tensor takes 16,512 bytes, headers less
    EXPECT_LT(fs::file_size(dir / ("out/" + shard)), 25'000u) << shard;
  options.max_shard_size = "much";
  options.output = dir / "other";
  EXPECT_THROW(export_model(trained, options), ConfigError);
}

TEST_F(Export, MergedWeightsHaveTheTypeOfTheBasesFile) {
  for (const std::string type : {"float16", "bfloat16", "float32"}) {
    const std::string base = dir / type, again = dir / ("again-" + type), plain = again + "-plain";
    export_model(trained, {"merged", base, type});
    ModelChoice chosen = choice();
    chosen.model = base;
    TrainedModel opened = open_model(chosen);
    export_model(opened, {.format = "merged", .output = again});
    dequantize_model(base, plain, "auto");
    for (const std::string& directory : {again, plain})
      for (const auto& [name, value] : quant::read_tensors(directory + "/model.safetensors"))
        EXPECT_EQ(value.scalar_type(), model::dtype_from_string(type, "type")) << name;
  }
}

TEST_F(Export, AnEmptyDirectoryIsTaken) {
  fs::create_directory(dir / "out");
  export_model(trained, {"merged", dir / "out", "bfloat16"});
  EXPECT_TRUE(fs::exists(dir / "out/verification.json"));
  EXPECT_TRUE(fs::exists(dir / "out/model.safetensors"));
}

TEST_F(Export, OneThatFailsLeavesNoDirectory) {
  trained.base.model->groups().back()->layers().front().adapter->b.fill_(1e6f);
  EXPECT_THROW(export_model(trained, {"merged", dir / "out", "float16"}), Error);
  expect_nothing_was_left();
}

TEST_F(Export, OneThatIsNotTheTrainedModelLeavesNoDirectory) {
  // Other masters than the products read: what is written is not what the reference ran.
  at::Tensor values = trained.adapters->values();
  values.mul_(-40.0);
  EXPECT_THROW(export_model(trained, {"merged", dir / "out", "bfloat16"}), Error);
  expect_nothing_was_left();
}

TEST_F(Export, AnAdapterOfABaseAloneIsRefused) {
  TrainedModel base = open_model(choice());
  EXPECT_THROW(export_model(base, {"adapter", dir / "out", "bfloat16"}), ConfigError);
  expect_nothing_was_left();
}

TEST_F(Export, UnknownFormatsAndDtypesAreRefusedByName) {
  for (const auto& [format, dtype, named] : {std::tuple{"onnx", "bfloat16", "onnx"},
                                             {"ggml", "bfloat16", "ggml"},
                                             {"merged", "int3", "--dtype"}}) {
    try {
      export_model(trained, {format, dir / "out", dtype});
      ADD_FAILURE() << format << " " << dtype;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(named));
    }
  }
  expect_nothing_was_left();
}

}  // namespace
}  // namespace qlora::recipes
