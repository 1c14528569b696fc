// model.device_map and model.max_memory, from the recipe to the adapter.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "model/generate.h"
#include "model/load.h"
#include "recipes/exports/export_model.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/plan/placement.h"
#include "recipes/plan/plan.h"
#include "recipes/qlora_finetune.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/memory_fit.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using quant::Home;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::ThrowsMessage;
using Map = std::map<std::string, std::string>;

constexpr const char* kSmall =
    "model: {path: m}\n"
    "data: {train: [{path: rows.jsonl}]}\n"
    "train: {max_steps: 3}\n"
    "output: {dir: run}\n";

Recipe parse(const std::vector<std::string>& overrides) {
  return parse_recipe(kSmall, "r.yaml", "/base", overrides);
}

TEST(DeviceMap, AWordStandsForTheWholeModelAndAMapForItsModules) {
  EXPECT_TRUE(parse({}).model.device_map.empty());
  EXPECT_THAT(parse({"model.device_map=auto"}).model.device_map, ElementsAre(Pair("", "auto")));
  const Recipe recipe =
      parse({"model.device_map={model.layers: disk, model.layers.3: cuda:0, '': 0}",
             "model.offload_dir=spilled"});
  EXPECT_THAT(recipe.model.device_map, ElementsAre(Pair("", "0"), Pair("model.layers", "disk"),
                                                   Pair("model.layers.3", "cuda:0")));
  EXPECT_EQ(recipe.model.offload_dir, "/base/spilled");
}

TEST(DeviceMap, WhatIsWrittenBackReadsAsTheSame) {
  for (const Recipe& recipe :
       {parse({"model.device_map=auto", "model.max_memory={cuda:0: 20GiB, cpu: 3 GB}"}),
        parse({"model.device_map={'': cpu, model.layers.3: cuda:0}"}), parse({})}) {
    const Recipe again = parse_recipe(write_recipe(recipe), "again.yaml", "/elsewhere", {});
    EXPECT_EQ(again.model.device_map, recipe.model.device_map);
    EXPECT_EQ(again.model.max_memory, recipe.model.max_memory);
  }
}

TEST(DeviceMap, WhatIsWrongIsToldWithItsKey) {
  const auto expect = [](const std::vector<std::string>& overrides, const std::string& word) {
    EXPECT_THAT([&] { parse(overrides); }, ThrowsMessage<ConfigError>(HasSubstr(word)));
  };
  expect({"model.device_map=balanced"}, "model.device_map must be auto, cpu, disk");
  expect({"model.device_map=[cpu]"}, "model.device_map must be a word such as auto, or a map");
  expect({"model.device_map={model.layers: gpu}"}, "model.device_map.model.layers must be cpu");
  expect({"model.device_map=auto", "model.max_memory={cpu: lots}"},
         "model.max_memory.cpu must be a size");
  expect({"model.max_memory={cpu: 3GB}"}, "is for model.device_map: auto");
  expect({"offload_folder=x"}, "model.offload_dir");
}

class Offloaded : public ::testing::Test {
 protected:
  Offloaded() : recipe_(test::tiny_recipe(dir_.path())) {}

  Recipe with(const std::string& run, const Map& device_map) const {
    Recipe recipe = recipe_;
    recipe.output.dir = dir_ / run;
    recipe.model.device_map = device_map;
    return recipe;
  }
  static void train(const Recipe& recipe) {
    const std::atomic<bool> stop = false;
    finetune(recipe, stop);
  }
  static std::string adapter(const Recipe& recipe) {
    return test::read_file(recipe.output.dir + "/adapter/adapter_model.safetensors");
  }
  static TrainedModel opened(const Recipe& recipe) {
    ModelChoice choice;
    choice.run_dir = recipe.output.dir;
    return open_model(choice);
  }

  const test::TempDir dir_;
  Recipe recipe_;
};

TEST_F(Offloaded, ARunFromDiskEndsWithTheAdapterOfThePlainRun) {
  const Recipe plain = with("plain", {});
  train(plain);
  ASSERT_FALSE(adapter(plain).empty());
  int count = 0;
  for (const Map& map : {Map{{"", "disk"}}, Map{{"model.layers.1", "disk"}}})
    for (const char* recompute : {"true", "false"}) {
      Recipe recipe = with(fmt::format("disk-{}", count++), map);
      recipe.train.gradient_checkpointing = recompute;
      train(recipe);
      EXPECT_EQ(adapter(recipe), adapter(plain)) << recompute;
    }
}

TEST_F(Offloaded, ARunGoesOnWithItsBlocksElsewhere) {
  const Recipe plain = with("plain", {});
  train(plain);
  Recipe parts = with("parts", {});
  parts.train.max_steps = 3;
  train(parts);
  parts.train.max_steps = plain.train.max_steps;
  parts.train.on_extend = "rescale";
  parts.model.device_map = {{"", "disk"}};
  Recipe whole = with("whole", {{"", "disk"}});
  whole.train.max_steps = 3;
  train(whole);
  whole.train.max_steps = plain.train.max_steps;
  whole.train.on_extend = "rescale";
  whole.model.device_map = {};
  train(parts);
  train(whole);
  EXPECT_EQ(adapter(parts), adapter(whole));
}

TEST_F(Offloaded, TheTrainedModelAnswersAndIsExportedAlike) {
  const Recipe plain = with("plain", {}), away = with("away", {{"", "disk"}});
  train(plain);
  train(away);
  TrainedModel here = opened(plain), there = opened(away);
  EXPECT_EQ(here.base.model->offload, nullptr);
  ASSERT_NE(there.base.model->offload, nullptr);
  EXPECT_EQ(there.base.record.hash, here.base.record.hash);
  model::GenerateOptions options;
  options.max_new_tokens = 4;
  const std::vector<std::vector<int32_t>> prompts = {{70, 71, 72}, {90}};
  EXPECT_EQ(model::generate(*there.base.model, prompts, options),
            model::generate(*here.base.model, prompts, options));
  export_model(here, {"merged", dir_ / "here", "bfloat16"});
  export_model(there, {"merged", dir_ / "there", "bfloat16"});
  EXPECT_EQ(test::read_file(dir_ / "there/model.safetensors"),
            test::read_file(dir_ / "here/model.safetensors"));
}

TEST_F(Offloaded, NoFileIsLeftInTheRunsDirectory) {
  const Recipe plain = with("plain", {}), away = with("away", {{"", "disk"}});
  train(plain);
  train(away);
  const auto names = [](const Recipe& recipe) {
    std::set<std::string> all;
    for (const auto& entry : fs::directory_iterator(recipe.output.dir)) {
      const std::string name = entry.path().filename().string();
      all.insert(name.starts_with("events.") ? "events" : name);  // named by the time
    }
    return all;
  };
  EXPECT_EQ(names(away), names(plain));
}

// TMPDIR until the end of the scope.
class Scratch {
 public:
  explicit Scratch(const std::string& path) {
    if (const char* value = std::getenv("TMPDIR")) before_ = value;
    setenv("TMPDIR", path.c_str(), 1);
  }
  ~Scratch() {
    if (before_)
      setenv("TMPDIR", before_->c_str(), 1);
    else
      unsetenv("TMPDIR");
  }

 private:
  std::optional<std::string> before_;
};

// Directories for such files are made by those who write one.
TEST_F(Offloaded, WhoReadsARunWritesItsWeightsElsewhere) {
  const Recipe plain = with("plain", {{"", "disk"}});
  Recipe named = with("named", {{"", "disk"}});
  named.model.offload_dir = dir_ / "named-there";
  {
    const Scratch unused(dir_ / "unused");
    train(plain);
    train(named);
  }
  EXPECT_FALSE(fs::exists(dir_ / "unused"));
  EXPECT_TRUE(fs::exists(named.model.offload_dir));
  const Scratch scratch(dir_ / "scratch");
  const TrainedModel from_there = opened(named);
  EXPECT_EQ(from_there.recipe.model.offload_dir, named.model.offload_dir);
  EXPECT_FALSE(fs::exists(dir_ / "scratch"));
  EXPECT_NE(opened(plain).base.model->offload, nullptr);
  EXPECT_TRUE(fs::exists(dir_ / "scratch"));
  fs::remove(named.model.offload_dir);
  fs::remove(dir_ / "scratch");
  EXPECT_NE(opened(named).base.model->offload, nullptr);
  EXPECT_TRUE(fs::exists(dir_ / "scratch"));
  EXPECT_FALSE(fs::exists(named.model.offload_dir));
}

TEST_F(Offloaded, WhereNothingCanBeWrittenTheKeyAndTheVariableAreNamed) {
  const Recipe plain = with("plain", {{"", "disk"}});
  train(plain);
  const Scratch scratch(dir_.write("file", "x"));
  EXPECT_THAT([&] { opened(plain); },
              ThrowsMessage<IoError>(AllOf(HasSubstr(dir_ / "file"), HasSubstr("model.offload_dir"),
                                           HasSubstr("TMPDIR"))));
}

TEST_F(Offloaded, APackedDirectoryIsReadFromItsOwnFiles) {
  test::write_made_directory(
      dir_ / "wide",
      R"({"model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "vocab_size": 258, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})");
  QuantizeOptions options;
  options.model = dir_ / "wide";
  options.output = dir_ / "packed";
  options.quantization.method = "nf4";
  quantize_model(options);
  Recipe recipe = with("run", {{"", "disk"}});
  recipe.model.path = options.output;
  recipe.quantization = {};
  const BaseModel packed = load_base(recipe, at::kCPU);
  int64_t bytes = 0;
  for (const lora::LinearGroup* group : packed.model->groups())
    for (const lora::LoraLinear& layer : group->layers()) bytes += layer.base->bytes();
  // But for the offsets of the scales, which lie in a text there, and tables that lie askew.
  EXPECT_LT(packed.model->offload->written_bytes(), bytes / 20);
  recipe.model.device_map = {};
  EXPECT_EQ(packed.record.hash, load_base(recipe, at::kCPU).record.hash);
}

TEST_F(Offloaded, AutoMovesAsMuchAsTheLimitAsksFor) {
  Recipe recipe = with("run", {{"", "auto"}});
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  recipe.train.gradient_checkpointing = "true";
  EXPECT_FALSE(planned_run(recipe, header, false).placement.elsewhere());
  recipe.model.max_memory = {{"cpu", "1MB"}};
  EXPECT_THAT([&] { planned_run(recipe, header, false); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("model.max_memory.cpu"),
                                               HasSubstr("with all blocks elsewhere"))));
}

TEST_F(Offloaded, ThePlanOfALargeModelSaysWhatLiesWhere) {
  Recipe recipe = with("run", {{"", "auto"}});
  recipe.model.path = dir_.write("llama/config.json", R"({
      "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
      "vocab_size": 32000, "rms_norm_eps": 1e-5, "tie_word_embeddings": false})");
  recipe.quantization.block_size = 64;
  recipe.lora.dropout = 0;
  recipe.optim.paged_resident_bytes = 0;
  recipe.data.sequence_length = 512;
  recipe.train.gradient_checkpointing = "true";
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  const auto plan_with = [&](const std::string& size) {
    recipe.model.max_memory = {{"cpu", size}};
    return planned_run(recipe, header, false);
  };
  const trainer::PlannedRun run = plan_with("3500MB");
  const trainer::MemoryPlan plan = trainer::plan_memory(run);
  EXPECT_LE(plan.peak(), 3'500'000'000);
  EXPECT_GT(plan.peak(), 3'300'000'000);  // within two blocks of it
  EXPECT_GT(run.placement.count(Home::kDisk), 0);
  EXPECT_GT(run.placement.count(Home::kDevice), 0);
  EXPECT_THAT(run.placement.to_text(), HasSubstr("3500 MB (model.max_memory.cpu)"));
  const trainer::MemoryPlan small = trainer::plan_memory(plan_with("3GB"));
  EXPECT_GT(small.bytes_in(trainer::Phase::kDisk), plan.bytes_in(trainer::Phase::kDisk));
}

TEST_F(Offloaded, RecomputationKeepsWithinTheLimitToo) {
  Recipe recipe = with("run", {{"", "auto"}});
  recipe.train.gradient_checkpointing = "auto";
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  trainer::PlannedRun run = planned_run(recipe, header, false);
  run.recompute_layers = true;
  const trainer::MemoryPlan least = trainer::plan_memory(run);
  recipe.model.max_memory = {{"cpu", std::to_string(least.peak())}};
  constexpr int64_t kPlenty = int64_t{1} << 40;
  const int64_t left = free_within_limit(recipe, run, kPlenty);
  EXPECT_NEAR(static_cast<double>(left) * trainer::kUsableShare,
              static_cast<double>(least.after_loading()), 2);
  EXPECT_EQ(free_within_limit(recipe, run, 1000), 1000);
  recipe.model.max_memory = {};
  EXPECT_EQ(free_within_limit(recipe, run, kPlenty), kPlenty);
}

TEST_F(Offloaded, AGpuThatARunOnTheCpuDoesNotUseIsRefused) {
  const auto expect = [](const Recipe& recipe, const std::string& beginning) {
    EXPECT_THAT([&] { train(recipe); },
                ThrowsMessage<ConfigError>(HasSubstr(beginning + ": the run is on cpu")));
  };
  expect(with("run", {{"model.layers", "cuda:0"}}), "model.device_map.model.layers");
  expect(with("run", {{"", "3"}}), "model.device_map");
  Recipe limited = with("run", {{"", "auto"}});
  limited.model.max_memory = {{"cuda:0", "1GB"}};
  expect(limited, "model.max_memory.cuda:0");
}

TEST_F(Offloaded, AModuleThatTheModelDoesNotHaveIsToldBeforeAnythingIsLoaded) {
  EXPECT_THAT(
      [&] {
        train(with("run", {{"model.layers.9", "disk"}}));
      },
      ThrowsMessage<ConfigError>(HasSubstr("model.device_map.model.layers.9")));
}

}  // namespace
}  // namespace qlora::recipes
