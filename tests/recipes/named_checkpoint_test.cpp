// Which checkpoints a run goes on from when one is named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using ::testing::HasSubstr;

class NamedCheckpoints : public testing::Test {
 protected:
  void TearDown() override { log::close_file(); }

  // Two steps, with a checkpoint after each.
  static void train(const Recipe& recipe) {
    const std::atomic<bool> never{false};
    ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
    log::close_file();
  }
  static void expect_refused(const Recipe& recipe, const std::string& part) {
    EXPECT_THAT([&] { RunDirectory run(recipe); },
                testing::ThrowsMessage<ConfigError>(HasSubstr(part)));
  }
  void SetUp() override {
    recipe.train.max_steps = 2;
    recipe.train.save_every = 1;
    train(recipe);
  }

  test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
};

// Its tensors fit, and alpha, by which they were trained, is in no tensor.
TEST_F(NamedCheckpoints, ACheckpointOfAnotherRecipeIsRefusedWithOrWithoutItsRecipeBesideIt) {
  Recipe other = recipe;
  other.output.dir = dir / "other";
  other.lora.alpha = 64;
  other.optim.schedule = "constant";
  train(other);
  recipe.train.resume = other.output.dir + "/checkpoint-000001";
  expect_refused(recipe, "train.resume: " + recipe.train.resume);
  expect_refused(recipe, "lora.alpha: 64 -> ");
  expect_refused(recipe, "optim.schedule: constant -> ");
  expect_refused(recipe, "lora.from_adapter: " + recipe.train.resume + "/adapter");
  fs::copy(recipe.train.resume, dir / "alone", fs::copy_options::recursive);
  recipe.train.resume = dir / "alone";
  expect_refused(recipe, "lora.alpha: 64 -> ");
  recipe.train.resume = dir / "alone/";
  expect_refused(recipe, "lora.alpha: 64 -> ");
}

TEST_F(NamedCheckpoints, ACopyOfAnOwnCheckpointIsTakenFromAnywhere) {
  fs::copy(recipe.output.dir, dir / "copied", fs::copy_options::recursive);
  fs::copy(recipe.output.dir + "/checkpoint-000001", dir / "alone", fs::copy_options::recursive);
  for (const std::string& copy : {dir / "copied/checkpoint-000001", dir / "alone"}) {
    recipe.train.resume = copy;
    EXPECT_EQ(RunDirectory(recipe).checkpoint(), copy);
  }
}

}  // namespace
}  // namespace qlora::recipes
