#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/error.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {

// A run that learns nothing: the first evaluation is the best.
Recipe idle_recipe(const test::TempDir& dir) {
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.optim.lr = 1e-9;
  recipe.train.eval_every = 1;
  recipe.train.early_stopping_min_delta = 1e-3;
  return recipe;
}

int64_t last_step(const Recipe& recipe) {
  return trainer::read_train_state(
             *trainer::newest_checkpoint(recipe.output.dir, trainer::Look::kSizes).whole)
      .step;
}

trainer::Outcome train(const Recipe& recipe) {
  const std::atomic<bool> stop = false;
  return finetune(recipe, stop);
}

TEST(EarlyStopping, TheRunEndsAfterAsManyEvaluationsWithoutAGain) {
  const test::TempDir dir;
  Recipe recipe = idle_recipe(dir);
  recipe.train.early_stopping_patience = 2;
  EXPECT_EQ(train(recipe), trainer::Outcome::kFinished);
  EXPECT_EQ(last_step(recipe), 3);  // the best, and two after it
  EXPECT_TRUE(std::filesystem::exists(recipe.output.dir + "/adapter"));
}

TEST(EarlyStopping, WithoutPatienceTheRunGoesOn) {
  const test::TempDir dir;
  const Recipe recipe = idle_recipe(dir);
  train(recipe);
  EXPECT_EQ(last_step(recipe), recipe.train.max_steps);
}

TEST(EarlyStopping, ItNeedsEvaluations) {
  const test::TempDir dir;
  Recipe recipe = idle_recipe(dir);
  recipe.train.early_stopping_patience = 2;
  recipe.train.eval_every = 0;
  EXPECT_THROW(recipe.train.validate(), ConfigError);
  recipe.train.eval_every = 1;
  recipe.data.eval.clear();
  recipe.data.eval_fraction = 0;
  EXPECT_THROW(recipe.validate_across_sections(), ConfigError);
}

}  // namespace
}  // namespace qlora::recipes
