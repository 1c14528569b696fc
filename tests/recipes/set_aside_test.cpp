// What a run keeps of the steps that it takes again.
#include "recipes/run_files/set_aside.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/last_save.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

const std::atomic<bool> kNever{false};

// Three steps, with a checkpoint after each.
class SetAside : public testing::Test {
 protected:
  SetAside() {
    recipe.train.max_steps = 3;
    recipe.train.save_every = 1;
  }
  void TearDown() override { log::close_file(); }
  void train() const { ASSERT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished); }
  void remove(const std::vector<std::string>& names) const {
    for (const std::string& name : names) fs::remove_all(dir / ("run/" + name));
  }

  test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
};

TEST_F(SetAside, LinesOfStepsAreKeptWhenTheCheckpointsOfTheseStepsAreGone) {
  train();
  const std::string metrics = test::read_file(dir / "run/metrics.jsonl");
  dir.write("run/samples.jsonl", "{\"step\":3}\n");
  remove({"checkpoint-000002", "checkpoint-000003"});
  recipe.train.max_steps = 4;
  recipe.train.on_extend = "rescale";
  train();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/metrics.jsonl"), metrics);
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/samples.jsonl"), "{\"step\":3}\n");
}

TEST_F(SetAside, ARunThatBeginsAnewKeepsTheLinesOfTheOneBefore) {
  train();
  const std::string metrics = test::read_file(dir / "run/metrics.jsonl");
  remove({"adapter", "checkpoint-000001", "checkpoint-000002", "checkpoint-000003"});
  train();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/metrics.jsonl"), metrics);
  EXPECT_NE(test::read_file(dir / "run/metrics.jsonl"), "");
}

TEST_F(SetAside, ACheckpointThatIsALinkIsGoneOnFromAndOneThatLeadsNowhereIsKept) {
  train();
  fs::rename(dir / "run/checkpoint-000002", dir / "elsewhere");
  fs::create_directory_symlink(dir / "elsewhere", dir / "run/checkpoint-000002");
  remove({"adapter", "checkpoint-000003"});
  fs::create_directory_symlink(dir / "absent", dir / "run/checkpoint-000003");
  train();
  log::close_file();
  EXPECT_THAT(test::read_file(dir / "run/log.txt"),
              testing::HasSubstr("going on from " + dir / "run/checkpoint-000002"));
  EXPECT_TRUE(fs::is_symlink(dir / "run/checkpoint-000002"));
  EXPECT_EQ(fs::read_symlink(dir / "run/set-aside-1/checkpoint-000003"), dir / "absent");
}

// The run as a kill between the last step and its checkpoint leaves it.
TEST_F(SetAside, ALinkLeadsWhereItLedBefore) {
  train();
  fs::rename(dir / "run/adapter", dir / "elsewhere");
  fs::create_symlink("../elsewhere", dir / "run/adapter");
  recipe.train.max_steps = 4;
  recipe.train.on_extend = "rescale";
  train();
  EXPECT_TRUE(fs::is_symlink(dir / "run/set-aside-1/adapter"));
  EXPECT_TRUE(fs::exists(dir / "run/set-aside-1/adapter/adapter_model.safetensors"));
  EXPECT_FALSE(fs::is_symlink(dir / "run/adapter"));
  EXPECT_TRUE(fs::exists(dir / "run/adapter/adapter_model.safetensors"));
}

TEST_F(SetAside, AProfileIsKeptWhereTheNextOneIsMade) {
  train();
  dir.write("run/profile.json", "the first");
  recipe.train.max_steps = 4;
  recipe.train.on_extend = "rescale";
  train();  // without a profile
  EXPECT_EQ(test::read_file(dir / "run/profile.json"), "the first");
  recipe.train.max_steps = 5;
  recipe.train.profile_steps = 1;
  train();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-3/profile.json"), "the first");
}

TEST_F(SetAside, WhatAKillLeftOfStepsThatAreRepeatedStaysInItsPlace) {
  train();
  remove({"adapter", "best", "checkpoint-000003"});
  note_last_save(dir / "run", 2);
  train();
  EXPECT_FALSE(fs::exists(dir / "run/set-aside-1"));
  EXPECT_EQ(last_save(dir / "run"), 3);
}

TEST_F(SetAside, LinesThatAKillLeftAreKeptWhereTheRecipeIsNoMoreTheSame) {
  train();
  const std::string metrics = test::read_file(dir / "run/metrics.jsonl");
  remove({"adapter", "best", "checkpoint-000003"});
  note_last_save(dir / "run", 2);
  recipe.train.max_steps = 4;
  recipe.train.on_extend = "rescale";
  train();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/metrics.jsonl"), metrics);
}

TEST_F(SetAside, LinesThatAreTornAreNotCalledLaterOnes) {
  train();
  const std::string metrics = test::read_file(dir / "run/metrics.jsonl");
  const std::string torn = metrics.substr(0, metrics.find('\n') + 10);  // within the second line
  dir.write("run/metrics.jsonl", torn);
  remove({"adapter"});
  recipe.train.max_steps = 4;
  recipe.train.on_extend = "rescale";
  train();
  log::close_file();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/metrics.jsonl"), torn);
  EXPECT_THAT(test::read_file(dir / "run/log.txt"),
              testing::HasSubstr("the run goes on from step 3; lines that are torn are left out"));
}

TEST_F(SetAside, WhatAKillLeftBeforeTheFirstCheckpointIsNotKept) {
  train();
  remove({"adapter", "best", "checkpoint-000001", "checkpoint-000002", "checkpoint-000003"});
  note_last_save(dir / "run", 0);
  train();
  EXPECT_FALSE(fs::exists(dir / "run/set-aside-1"));
}

TEST_F(SetAside, LinesOfAnUnfinishedRunAreKeptWhenItsLaterCheckpointsWereDeleted) {
  train();
  const std::string metrics = test::read_file(dir / "run/metrics.jsonl");
  dir.write("run/samples.jsonl", "{\"step\":1}\n{\"step\":3}\n");
  remove({"adapter", "best", "checkpoint-000002", "checkpoint-000003"});
  train();
  log::close_file();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/metrics.jsonl"), metrics);
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/samples.jsonl"), "{\"step\":1}\n{\"step\":3}\n");
  EXPECT_THAT(test::read_file(dir / "run/log.txt"),
              testing::HasSubstr("the run goes on from step 1; what it had written beyond that is "
                                 "now in " +
                                 dir / "run/set-aside-1 (metrics.jsonl, samples.jsonl)"));
  remove({"adapter", "checkpoint-000003"});
  note_last_save(dir / "run", 2);  // and what a later kill leaves is not
  train();
  EXPECT_FALSE(fs::exists(dir / "run/set-aside-2"));
}

TEST_F(SetAside, LinesOfARunThatAnEarlierVersionBeganAreKeptOnce) {
  train();
  const std::string metrics = test::read_file(dir / "run/metrics.jsonl");
  remove({"adapter", "best", "checkpoint-000003", kLastSave});
  train();
  EXPECT_EQ(test::read_file(dir / "run/set-aside-1/metrics.jsonl"), metrics);
}

}  // namespace
}  // namespace qlora::recipes
