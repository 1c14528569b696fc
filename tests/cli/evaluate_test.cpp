#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {

// The last loss that the run logged on the rows it had set aside is that of its adapter on them.
TEST(EvaluateCommand, TakesTheRowsThatTheRunSetAside) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.eval.clear();
  recipe.data.eval_fraction = 0.3;
  recipe.train.eval_every = 3;
  const std::string file = write_recipe_file(dir, recipe);
  ASSERT_EQ(run_qlora(dir, {"train", file}).exit_code, 0);
  double logged = 0;
  std::istringstream lines(read_file(dir / "run/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto metrics = nlohmann::json::parse(line);
    if (metrics.contains("eval_loss") && metrics["step"] == recipe.train.max_steps)
      logged = metrics["eval_loss"].get<double>();
  }
  ASSERT_GT(logged, 0);

  const Finished done =
      run_qlora(dir, {"evaluate", dir / "run", "--json", "--exact-match", "--max-new-tokens", "2"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto result = nlohmann::json::parse(done.out)[0];
  EXPECT_NEAR(result["loss"].get<double>(), logged, 1e-6 * logged);
  EXPECT_EQ(result["rows"].size(), 7U);  // 0.3 of 23
  ASSERT_EQ(result["answers"].size(), 7U);
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(result["answers"][i]["row"], result["rows"][i]["row"]);
}

}  // namespace
}  // namespace qlora::test
