#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run/judged_evaluations.h"
#include "tests/support/across_sections.h"
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

TEST(EarlyStopping, AnotherGainJudgesTheEvaluationsOfAStoppedRunAnew) {
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.train.eval_every = 1;
  recipe.train.early_stopping_patience = 2;
  recipe.train.early_stopping_min_delta = 100;
  train(recipe);
  ASSERT_EQ(last_step(recipe), 3);
  recipe.train.early_stopping_min_delta = 50;  // still none of them is a gain
  train(recipe);
  EXPECT_EQ(last_step(recipe), 3);
  recipe.train.early_stopping_min_delta = 0;
  train(recipe);
  EXPECT_GT(last_step(recipe), 3);
}

TEST(EarlyStopping, TheLinesOfMetricsSayHowManyGainedNothing) {
  std::string metrics;
  const double losses[] = {3.0, 2.5, 2.4, 2.35, 2.38, 1.0};
  for (size_t i = 0; i < std::size(losses); ++i)
    metrics += fmt::format("{{\"step\":{0},\"loss\":9}}\n{{\"step\":{0},\"eval_loss\":{1}}}\n",
                           i + 1, losses[i]);
  trainer::TrainState state;
  state.step = 5;  // the last line is of a step that a kill left behind
  state.best_eval_loss = 2.35;
  state.stale_evaluations = 7;
  EXPECT_EQ(stale_evaluations(metrics, 0, state), 1);
  EXPECT_EQ(stale_evaluations(metrics, 0.2, state), 3);
  EXPECT_EQ(stale_evaluations(metrics, 0.7, state), 4);
  state.best_eval_loss = 2.3;  // of a line that is gone
  EXPECT_EQ(stale_evaluations(metrics, 0, state), 7);
  EXPECT_EQ(stale_evaluations("", 0, state), 7);
}

// A kill between such an evaluation and the next checkpoint leaves its line.
TEST(EarlyStopping, AnEvaluationThatIsMadeAgainCountsOnce) {
  std::string metrics =
      "{\"step\":1,\"eval_loss\":3}\n{\"step\":2,\"eval_loss\":2}\n"
      "{\"step\":3,\"eval_loss\":2.5}\n{\"step\":4,\"eval_loss\":2.25}\n";
  trainer::TrainState state;
  state.step = 4;
  state.best_eval_loss = 2;
  state.stale_evaluations = 7;
  EXPECT_EQ(stale_evaluations(metrics, 0, state), 2);
  state.evaluation_due = true;
  EXPECT_EQ(stale_evaluations(metrics, 0, state), 1);
  state.evaluation_due = false;
  metrics += "{\"step\":4,\"eval_loss\":2.25}\n";  // as it went on
  EXPECT_EQ(stale_evaluations(metrics, 0, state), 2);
}

TEST(EarlyStopping, ARunThatHasAllItsStepsIsNotSaidToHaveStoppedEarly) {
  for (const int64_t steps : {3, 4}) {
    const test::TempDir dir;
    Recipe recipe = idle_recipe(dir);
    recipe.train.max_steps = steps;
    recipe.train.early_stopping_patience = 2;
    testing::internal::CaptureStderr();
    train(recipe);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(said.find("stopped early") != std::string::npos, steps == 4) << said;
  }
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
  EXPECT_THROW(test::require_sections_agree(recipe), ConfigError);
}

}  // namespace
}  // namespace qlora::recipes
