// A run that takes the place of another one in its directory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/kill_at_call.h"
#include "tests/support/temp_dir.h"
#include "tests/support/two_step_run.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

std::set<std::string> names_in(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.insert(entry.path().filename().string());
  return names;
}

class AReplacedRun : public test::TwoStepRun {
 protected:
  static void expect_refused(const Recipe& other, const std::string& part) {
    EXPECT_THAT([&] { RunDirectory run(other); },
                testing::ThrowsMessage<ConfigError>(testing::HasSubstr(part)));
  }
  // The run as a kill behind its first checkpoint leaves it.
  void train_and_interrupt() {
    train();
    fs::remove_all(dir / "run/adapter");
    fs::remove_all(dir / "run/checkpoint-000002");
    fs::remove(dir / "run/log.txt");
  }
  std::string said() const {
    log::close_file();
    return test::read_file(dir / "run/log.txt");
  }
};

// A recipe with the key is started again after a kill as one without it is.
TEST_F(AReplacedRun, TheKeyAloneLetsAnUnfinishedRunOfTheSameRecipeGoOn) {
  train_and_interrupt();
  recipe.output.overwrite = true;
  const RunDirectory run(recipe);
  EXPECT_EQ(run.checkpoint(), recipe.output.dir + "/checkpoint-000001");
  run.begin(recipe, 1);
  EXPECT_TRUE(fs::exists(dir / "run/checkpoint-000001/state.json"));
  EXPECT_THAT(said(), testing::AllOf(testing::HasSubstr("is not finished and goes on"),
                                     testing::HasSubstr("--overwrite begins anew")));
  EXPECT_TRUE(begun_run(recipe).has_value());
}

TEST_F(AReplacedRun, TheCommandLinesWordReplacesItAndSaysWhatGoesBefore) {
  train_and_interrupt();
  recipe.output.overwrite = recipe.output.begins_anew = true;
  EXPECT_FALSE(begun_run(recipe).has_value());
  const RunDirectory run(recipe);
  EXPECT_FALSE(run.checkpoint().has_value());
  run.begin(recipe, 0);
  EXPECT_FALSE(fs::exists(dir / "run/checkpoint-000001"));
  EXPECT_THAT(said(), testing::HasSubstr("the run in " + recipe.output.dir +
                                         " is replaced; what it had is removed: 2 steps, 1 "
                                         "checkpoint (the last: checkpoint-000001)"));
}

TEST_F(AReplacedRun, OneOfWhichAPartCannotBeRenamedIsLeftAsItWas) {
  train();
  recipe.output.overwrite = recipe.output.begins_anew = true;
  fs::create_directory(dir / "run/base");
  const auto before = names_in(dir / "run");
  refuse_rename_of("base");
  {
    const RunDirectory run(recipe);
    EXPECT_THAT([&] { run.begin(recipe, 0); },
                testing::ThrowsMessage<IoError>(
                    testing::AllOf(testing::HasSubstr("run/base cannot be renamed"),
                                   testing::HasSubstr("the run there is left as it was"))));
  }
  refuse_rename_of(nullptr);
  EXPECT_EQ(names_in(dir / "run"), before);
  EXPECT_THAT(said(), testing::Not(testing::HasSubstr("is removed")));
  recipe.output.overwrite = recipe.output.begins_anew = false;
  EXPECT_TRUE(RunDirectory(recipe).finished());
}

TEST_F(AReplacedRun, TheKeyReplacesAnUnfinishedRunOfAnotherRecipeAndOneThatNeverIsToGoOn) {
  train_and_interrupt();
  recipe.output.overwrite = true;
  Recipe other = recipe;
  other.lora.rank = 8;
  EXPECT_FALSE(RunDirectory(other).checkpoint().has_value());
  recipe.train.resume = "never";
  EXPECT_FALSE(RunDirectory(recipe).checkpoint().has_value());
}

TEST_F(AReplacedRun, OfAFinishedOneTheAdapterIsNamedThatGoes) {
  train();
  recipe.output.overwrite = true;
  EXPECT_FALSE(begun_run(recipe).has_value());
  const RunDirectory run(recipe);
  EXPECT_FALSE(run.finished());
  run.begin(recipe, 0);
  EXPECT_FALSE(fs::exists(dir / "run/adapter"));
  EXPECT_THAT(said(), testing::HasSubstr("what it had is removed: 2 steps, 2 checkpoints (the "
                                         "last: checkpoint-000002), adapter"));
}

TEST_F(AReplacedRun, OverwriteSparesWhatIsOnlyCalledAlikeByItsUser) {
  train();
  const std::vector<std::string> mine = {"checkpoint-merged/config.json",
                                         "checkpoint-1/x",
                                         "checkpoint-000002-kept/x",
                                         "set-aside/x",
                                         "set-aside-1b/x",
                                         "set-aside-01/x",
                                         "events.out.tfevents.1.mine"};
  for (const std::string& name : mine) dir.write("run/" + name, "mine");
  recipe.output.overwrite = true;
  RunDirectory(recipe).begin(recipe, 0);
  for (const std::string& name : mine) EXPECT_EQ(test::read_file(dir / ("run/" + name)), "mine");
  EXPECT_FALSE(fs::exists(dir / "run/checkpoint-000002"));
}

// Of a replacement that was cut short after its first file.
TEST_F(AReplacedRun, WhatIsBeingReplacedIsTheNewRunForEveryStart) {
  train();
  Recipe other = recipe;
  other.lora.rank = 8;
  dir.write("run/recipe.replacing.yaml", write_recipe(other));
  EXPECT_EQ(read_run_recipe(recipe.output.dir).lora.rank, 8);
  EXPECT_FALSE(begun_run(other).has_value());
  other.train.resume = "checkpoint-000001";
  expect_refused(other, "holds no run that could go on");
  other.train.resume = "auto";
  other.lora.from_adapter = dir / "run/adapter";
  expect_refused(other, "lora.from_adapter");
  other.lora.from_adapter.clear();
  const RunDirectory run(other);
  EXPECT_FALSE(run.finished() || run.checkpoint());
  run.begin(other, 0);
  EXPECT_FALSE(fs::exists(dir / "run/adapter"));
  EXPECT_FALSE(fs::exists(dir / "run/recipe.replacing.yaml"));
  EXPECT_EQ(test::read_file(dir / "run/recipe.resolved.yaml"), write_recipe(other));
}

}  // namespace
}  // namespace qlora::recipes
