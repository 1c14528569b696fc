// What is told of a recipe whose run has begun, and what is refused of one whose run begins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::atomic<bool> kNever{false};

constexpr const char* kAdapter = "run/adapter/adapter_model.safetensors";

// Of four steps, with a checkpoint after every other.
class BegunRun : public testing::Test {
 protected:
  BegunRun() {
    recipe.train.max_steps = 4;
    recipe.train.save_every = 2;
    EXPECT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished);
    trained = test::read_file(dir / kAdapter);
  }
  void TearDown() override { log::close_file(); }

  // The run as a kill leaves it, begun with this recipe by a version that did not look at it.
  void interrupt(const Recipe& begun) const {
    fs::remove_all(dir / "run/adapter");
    fs::remove_all(dir / "run/checkpoint-000004");
    fs::remove(dir / "run/log.txt");
    dir.write("run/recipe.resolved.yaml", write_recipe(begun));
  }
  std::string said() const {
    log::close_file();
    return test::read_file(dir / "run/log.txt");
  }

  test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  std::string trained;
};

TEST_F(BegunRun, EntriesThatMeanNothingInTheModelAreToldOfAndARunThatBeginsIsRefused) {
  Recipe begun = read_run_recipe(dir / "run");
  begun.lora.exclude_modules = {"nothing"};
  begun.lora.rank_pattern = {{"nobody", 8}};
  begun.lora.alpha_pattern = {{"neither", 3.0}};
  begun.lora.layers_to_transform = {0, 1, 99};
  begun.quantization.skip_modules.emplace_back("gone");
  const auto faults =
      AllOf(HasSubstr("lora.exclude_modules: 'nothing' matches no module"),
            HasSubstr("lora.rank_pattern: 'nobody' matches no module"),
            HasSubstr("lora.alpha_pattern: 'neither' matches no module"),
            HasSubstr("lora.layers_to_transform: the model has the layers 0 to 1, got 99"),
            HasSubstr("quantization.skip_modules: 'gone' names no module"));
  interrupt(begun);
  EXPECT_EQ(finetune(read_run_recipe(dir / "run"), kNever), trainer::Outcome::kFinished);
  EXPECT_EQ(test::read_file(dir / kAdapter), trained);
  EXPECT_THAT(said(), AllOf(faults, HasSubstr("the run goes on as it began")));
  begun.output.dir = dir / "other";
  EXPECT_THAT([&] { finetune(begun, kNever); }, ThrowsMessage<ConfigError>(faults));
  EXPECT_FALSE(fs::exists(dir / "other/recipe.resolved.yaml"));
}

TEST_F(BegunRun, AFaultBesideSuchEntriesIsToldAlone) {
  Recipe begun = read_run_recipe(dir / "run");
  begun.lora.exclude_modules = {"nothing"};
  interrupt(begun);
  fs::remove(dir / "rows.jsonl");
  EXPECT_THAT([&] { finetune(read_run_recipe(dir / "run"), kNever); },
              ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("rows.jsonl"), testing::Not(HasSubstr("exclude_modules")))));
}

// bf16 NaN (0x7fc0) into the last weight of the file, which only reading the weights finds.
void spoil_weights(const std::string& model) {
  std::fstream file(model + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-2, std::ios::end);
  file.write("\xc0\x7f", 2);
}

TEST_F(BegunRun, WhatTheRateDoesInALongerRunIsAskedWithAllElseBeforeAWeightIsRead) {
  spoil_weights(dir / "model");
  recipe.train.max_steps = 9;
  recipe.train.sample_prompts = {dir / "absent.txt"};
  EXPECT_THAT([&] { finetune(recipe, kNever); },
              ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("train.on_extend: the run was laid out for 4 steps and is now "
                                  "to have 9"),
                        HasSubstr("train.sample_prompts: there is no file"))));
}

TEST_F(BegunRun, ARateThatWouldStayAtZeroIsRefusedBeforeAWeightIsRead) {
  spoil_weights(dir / "model");
  recipe.train.max_steps = 9;
  for (const char* wish : {"continue", ""}) {
    recipe.train.on_extend = wish;
    EXPECT_THAT([&] { finetune(recipe, kNever); },
                ThrowsMessage<ConfigError>(AllOf(
                    HasSubstr("train.on_extend: the run was laid out for 4 steps and is now to "
                              "have 9, and the learning rate of optim.schedule cosine ends at 0 "
                              "after 4: to continue there trains nothing; set train.on_extend to "
                              "rescale"))));
  }
}

// As an earlier version recorded it. `qlora resume` could not say otherwise.
TEST_F(BegunRun, OfARateThatWouldStayAtZeroTheCommandIsNamedWhereTheRecipeIsTheRunsOwn) {
  Recipe begun = read_run_recipe(dir / "run");
  begun.train.max_steps = 9;
  begun.train.on_extend = "continue";
  interrupt(begun);
  EXPECT_THAT([&] { finetune(read_run_recipe(dir / "run"), kNever); },
              ThrowsMessage<ConfigError>(
                  HasSubstr("set train.on_extend to rescale (qlora train " + dir / "run" +
                            "/recipe.resolved.yaml --set output.dir=" + dir / "run" +
                            " --set train.max_steps=9 --set train.on_extend=rescale), by which")));
  const Recipe rescaled =
      read_recipe(dir / "run/recipe.resolved.yaml",
                  {"output.dir=" + dir / "run", "train.max_steps=9", "train.on_extend=rescale"});
  EXPECT_EQ(finetune(rescaled, kNever), trainer::Outcome::kFinished);
}

TEST_F(BegunRun, ThatARunEndsWithinItsWarmupIsAskedOfTheStepsItHasMade) {
  Recipe begun = read_run_recipe(dir / "run");
  begun.optim.warmup_steps = 1;
  begun.train.max_steps = 1;  // and has made two
  interrupt(begun);
  EXPECT_EQ(finetune(read_run_recipe(dir / "run"), kNever), trainer::Outcome::kFinished);
  EXPECT_THAT(said(), testing::Not(HasSubstr("never reaches optim.lr")));
}

TEST_F(BegunRun, ADeviceThatIsNotThereIsToldWithItsKey) {
  if (cuda_available()) GTEST_SKIP() << "there is one";
  recipe.output.dir = dir / "elsewhere";
  recipe.train.device = "cuda";
  EXPECT_THAT([&] { finetune(recipe, kNever); },
              ThrowsMessage<ConfigError>(testing::StartsWith("train.device: device 'cuda' was ")));
}

TEST_F(BegunRun, OfALongerRunByEpochsItIsAskedOnceTheRowsAreRead) {
  recipe.output.dir = dir / "epochs";
  recipe.train.max_steps = 0;
  recipe.train.epochs = 1;
  ASSERT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished);
  spoil_weights(dir / "model");
  recipe.train.epochs = 3;
  EXPECT_THAT([&] { finetune(recipe, kNever); },
              ThrowsMessage<ConfigError>(HasSubstr("train.on_extend: the run was laid out for ")));
}

TEST_F(BegunRun, ThatItsRowsAreOthersIsToldBeforeWhatFollowsFromTheirNumber) {
  recipe.output.dir = dir / "epochs";
  recipe.train.max_steps = 0;
  recipe.train.epochs = 1;
  ASSERT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished);
  const auto expect_told = [this] {
    EXPECT_THAT([&] { finetune(recipe, kNever); },
                ThrowsMessage<ConfigError>(
                    AllOf(HasSubstr("data.train: the rows are others than the run began with"),
                          testing::Not(HasSubstr("train.on_extend")))));
  };
  fs::remove_all(dir / "epochs/adapter");  // else nothing is left to train
  const std::string rows = test::read_file(dir / "rows.jsonl");
  dir.write("rows.jsonl", rows + rows);
  spoil_weights(dir / "model");
  expect_told();
  recipe.train.epochs = 3;
  expect_told();
  recipe.train.on_extend = "continue";
  expect_told();
}

}  // namespace
}  // namespace qlora::recipes
