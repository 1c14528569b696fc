// `qlora train` and `qlora resume` on a run that has nothing left to train.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

std::string command_for(const std::string& run) {
  return "qlora train " + run + "/recipe.resolved.yaml --set output.dir=" + run;
}

TEST(FinishedRun, SaysSoAndTouchesNothing) {
  for (const bool by_epochs : {false, true}) {
    TempDir dir;
    recipes::Recipe recipe = tiny_recipe(dir.path());
    if (by_epochs) {
      recipe.train.max_steps = 0;
      recipe.train.epochs = 1;
    }
    const std::string path = write_recipe_file(dir, recipe);
    ASSERT_EQ(run_qlora(dir, {"train", path}).exit_code, 0);
    const std::string metrics = read_file(dir / "run/metrics.jsonl");
    const auto written = fs::last_write_time(dir / "run/adapter/adapter_model.safetensors");
    for (const auto& arguments :
         {std::vector<std::string>{"train", path}, {"resume", dir / "run"}}) {
      const Finished again = run_qlora(dir, arguments);
      EXPECT_EQ(again.exit_code, 0) << again.err;
      EXPECT_THAT(again.err,
                  testing::AllOf(HasSubstr("was finished before: "), HasSubstr("train.on_extend"),
                                 HasSubstr("longer: " + command_for(dir / "run") +
                                           " --set train.max_steps=N --set train.on_extend="),
                                 HasSubstr("anew: " + command_for(dir / "run") + " --overwrite\n"),
                                 Not(HasSubstr("base model"))));
    }
    EXPECT_EQ(read_file(dir / "run/metrics.jsonl"), metrics);
    EXPECT_EQ(fs::last_write_time(dir / "run/adapter/adapter_model.safetensors"), written);
  }
}

TEST(FinishedRun, ItsStepsAreToldWhateverBecameOfItsCheckpoints) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.save_every = 1;
  const std::string path = write_recipe_file(dir, recipe);
  const Finished first = run_qlora(dir, {"train", path});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const size_t at = first.err.find("finished: ") + 10;
  const std::string numbers = first.err.substr(at, first.err.find(';', at) - at);
  const std::string newest = dir / fmt::format("run/checkpoint-{:06}", recipe.train.max_steps);
  fs::resize_file(newest + "/state.json", 1);
  const Finished damaged = run_qlora(dir, {"resume", dir / "run"});
  EXPECT_EQ(damaged.exit_code, 0);
  EXPECT_THAT(damaged.err, testing::AllOf(HasSubstr("was finished before: " + numbers + ";"),
                                          HasSubstr("damaged: " + newest + ": state.json")));
  fs::remove_all(newest);
  const Finished gone = run_qlora(dir, {"resume", dir / "run"});
  EXPECT_THAT(gone.err, testing::AllOf(HasSubstr("was finished before: " + numbers + ";"),
                                       Not(HasSubstr("damaged"))));
}

// The command for a longer one would be refused.
TEST(FinishedRun, WithoutACheckpointNoCommandForALongerOneIsAdvised) {
  TempDir dir;
  const std::string path = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", path}).exit_code, 0);
  for (const int step : {2, 4, 6}) fs::remove_all(dir / fmt::format("run/checkpoint-{:06}", step));
  const Finished again = run_qlora(dir, {"resume", dir / "run"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err,
              testing::AllOf(HasSubstr("was finished before: "), Not(HasSubstr("longer: ")),
                             HasSubstr("it cannot be made longer"),
                             HasSubstr("by lora.from_adapter: " + dir / "run/adapter"),
                             HasSubstr("anew: " + command_for(dir / "run") + " --overwrite\n")));
  const Finished next = run_qlora(dir, {"train", path, "--set", "output.dir=" + dir / "next",
                                        "--set", "lora.from_adapter=" + dir / "run/adapter"});
  EXPECT_EQ(next.exit_code, 0) << next.err;
}

TEST(FinishedRun, GoesOnWhereItIsToBeLonger) {
  TempDir dir;
  const std::string path = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", path}).exit_code, 0);
  const Finished longer = run_qlora(
      dir, {"train", path, "--set", "train.max_steps=8", "--set", "train.on_extend=rescale"});
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_THAT(longer.err, HasSubstr("finished: 8 steps"));
}

// The rate of cosine ends at 0: to continue there trains nothing.
TEST(FinishedRun, WhatItAdvisesIsWhatItsScheduleAllows) {
  for (const std::string schedule : {"cosine", "constant"}) {
    TempDir dir;
    recipes::Recipe recipe = tiny_recipe(dir.path());
    recipe.optim.schedule = schedule;
    const std::string path = write_recipe_file(dir, recipe);
    ASSERT_EQ(run_qlora(dir, {"train", path}).exit_code, 0);
    const Finished again = run_qlora(dir, {"train", path});
    const std::string wish = schedule == "cosine" ? "rescale" : "continue";
    EXPECT_THAT(again.err, HasSubstr("--set train.on_extend=" + wish + "\n"));
    // By the recipe that it names.
    const Finished longer =
        run_qlora(dir, {"train", dir / "run/recipe.resolved.yaml", "--set", "train.max_steps=8",
                        "--set", "train.on_extend=" + wish});
    EXPECT_EQ(longer.exit_code, 0) << longer.err;
    EXPECT_THAT(longer.err, HasSubstr("finished: 8 steps"));
  }
}

// Its recipe says where it was.
TEST(FinishedRun, WhatItAdvisesIsOfTheDirectoryToWhichItWasCopied) {
  TempDir dir;
  const std::string path = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", path}).exit_code, 0);
  const std::string metrics = read_file(dir / "run/metrics.jsonl");
  fs::copy(dir / "run", dir / "copy",
           fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  EXPECT_THAT(run_qlora(dir, {"resume", dir / "copy"}).err,
              testing::AllOf(HasSubstr("longer: " + command_for(dir / "copy") + " --set train.max"),
                             HasSubstr("anew: " + command_for(dir / "copy") + " --overwrite")));
  const Finished anew = run_qlora(dir, {"train", dir / "copy/recipe.resolved.yaml", "--set",
                                        "output.dir=" + dir / "copy", "--overwrite"});
  EXPECT_EQ(anew.exit_code, 0) << anew.err;
  EXPECT_EQ(read_file(dir / "run/metrics.jsonl"), metrics);
}

// More steps alone would train nothing.
TEST(FinishedRun, OneThatEarlyStoppingEndedGoesOnWhereThatWaitsForLonger) {
  for (const int64_t steps : {6, 3}) {
    TempDir dir;
    recipes::Recipe recipe = tiny_recipe(dir.path());
    recipe.train.max_steps = steps;
    recipe.train.eval_every = 1;
    recipe.train.early_stopping_patience = 2;
    recipe.train.early_stopping_min_delta = 100;  // the first evaluation alone is a gain
    const std::string path = write_recipe_file(dir, recipe);
    const Finished first = run_qlora(dir, {"train", path});
    ASSERT_EQ(first.exit_code, 0) << first.err;
    ASSERT_THAT(first.err, HasSubstr("finished: 3 steps"));
    const std::string wait = " --set train.early_stopping_patience=0\n";
    std::vector<std::string> longer = {"train", dir / "run/recipe.resolved.yaml",
                                       "--set", "output.dir=" + dir / "run",
                                       "--set", "train.early_stopping_patience=0"};
    if (steps == 6) {
      EXPECT_THAT(run_qlora(dir, {"resume", dir / "run"}).err,
                  HasSubstr("longer: " + command_for(dir / "run") + wait));
    } else {
      EXPECT_THAT(run_qlora(dir, {"resume", dir / "run"}).err,
                  HasSubstr("--set train.on_extend=rescale" + wait));
      longer.insert(longer.end(),
                    {"--set", "train.max_steps=6", "--set", "train.on_extend=rescale"});
    }
    const Finished done = run_qlora(dir, longer);
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_THAT(done.err, HasSubstr("finished: 6 steps"));
  }
}

TEST(FinishedRun, ALearningRateThatIsFarTooHighIsADivergence) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 30;
  recipe.optim.schedule = "constant";
  recipe.optim.lr = 20;
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  EXPECT_EQ(done.exit_code, 3) << done.err;
  EXPECT_THAT(done.err, HasSubstr("lower optim.lr"));
}

}  // namespace
}  // namespace qlora::test
