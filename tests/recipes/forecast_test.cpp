#include "recipes/plan/forecast.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/support/small_run.h"

namespace qlora::recipes {
namespace {

data::PreparedData rows_of(const test::SmallRun& small, size_t eval_rows) {
  data::PreparedData data;
  data.train = small.loader->examples();
  std::vector<int64_t> first(eval_rows);
  std::iota(first.begin(), first.end(), 0);
  data.eval = data.train.chosen(first);
  return data;
}

TEST(Forecast, CountsTheStepsAndEvaluationsThatAreStillToBeDone) {
  test::SmallRun small(10);
  small.job->eval_every = 3;
  const data::PreparedData data = rows_of(small, 2);
  const int64_t tokens = data.eval[0].length() + data.eval[1].length();
  trainer::RunLength rest = rest_of(*small.job, data, 96);
  EXPECT_EQ(rest.steps, 10);
  EXPECT_EQ(rest.evaluations, 4);  // after 3, 6, 9 and 10
  EXPECT_EQ(rest.tokens_an_evaluation, tokens);
  small.state.step = 6;
  rest = rest_of(*small.job, data, 96);
  EXPECT_EQ(rest.steps, 4);
  EXPECT_EQ(rest.evaluations, 2);
  small.job->eval_every = 0;
  EXPECT_EQ(rest_of(*small.job, data, 96).evaluations, 1);
  EXPECT_EQ(rest_of(*small.job, rows_of(small, 0), 96).evaluations, 0);
}

TEST(Forecast, AStepHasTheTokensOfTheRowsAndNotOfTheRecipe) {
  test::SmallRun small(10);
  int64_t tokens = 0;
  for (const data::ExampleView& row : small.loader->examples()) tokens += row.length();
  const trainer::RunLength rest = rest_of(*small.job, rows_of(small, 0), 96);
  EXPECT_DOUBLE_EQ(rest.tokens_a_step * static_cast<double>(small.loader->steps_in_epoch(0)),
                   static_cast<double>(tokens));
  EXPECT_DOUBLE_EQ(rest.planned_tokens_a_step, 96);
}

}  // namespace
}  // namespace qlora::recipes
