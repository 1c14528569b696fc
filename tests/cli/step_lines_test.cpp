// The lines of a run as they reach a terminal and log.txt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// The lines of `text` that tell a step.
std::vector<std::string> step_lines(const std::string& text) {
  std::vector<std::string> steps;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (const size_t at = line.find("step  "); at != std::string::npos)
      steps.push_back(line.substr(at));
  return steps;
}

TEST(StepLines, LogEverySaysWhichStepsGetOne) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 8;
  recipe.train.log_every = 3;
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  std::vector<std::string> steps;
  for (const std::string& line : step_lines(done.err)) steps.push_back(line.substr(0, 11));
  EXPECT_EQ(steps,
            (std::vector<std::string>{"step    1/8", "step    3/8", "step    6/8", "step    8/8"}));
}

TEST(StepLines, FitTheTerminalAndAreWholeInTheLog) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  setenv("COLUMNS", "80", 1);
  const Finished done = run_qlora(dir, {"train", recipe});
  unsetenv("COLUMNS");
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto shown = step_lines(done.err), logged = step_lines(read_file(dir / "run/log.txt"));
  ASSERT_FALSE(shown.empty());
  ASSERT_EQ(shown.size(), logged.size());
  for (size_t i = 0; i < shown.size(); ++i) {
    EXPECT_LE(shown[i].size(), 80U);
    EXPECT_THAT(shown[i], AllOf(HasSubstr("epoch"), HasSubstr("loss"), HasSubstr(" left"),
                                Not(HasSubstr("\x1b"))));
    EXPECT_THAT(logged[i], AllOf(HasSubstr("supervised"), HasSubstr("grad"), HasSubstr(" GB")));
  }
}

TEST(StepLines, AWarmupThatTakesAllStepsIsToldOf) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 2;
  recipe.optim.warmup_steps = 5;
  const std::string file = write_recipe_file(dir, recipe);
  const Finished done = run_qlora(dir, {"train", file});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, HasSubstr("the warm-up takes 5 steps and the run has 2"));
  const Finished shorter =
      run_qlora(dir, {"train", file, "--overwrite", "--set", "optim.warmup_steps=1"});
  ASSERT_EQ(shorter.exit_code, 0) << shorter.err;
  EXPECT_THAT(shorter.err, Not(HasSubstr("warm-up")));
}

}  // namespace
}  // namespace qlora::test
