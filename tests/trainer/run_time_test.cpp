#include "trainer/run_time.h"

#include <gtest/gtest.h>

namespace qlora::trainer {
namespace {

TimePlan plan_of(std::vector<StagePlan> stages) {
  TimePlan plan;
  plan.stages = std::move(stages);
  return plan;
}

TEST(RunTime, OnlyStagesThatGrowWithTokensFollowTheRows) {
  const TimePlan plan = plan_of({{"linear", 3}, {"attention", 1}, {"dequantize", 2}});
  const RunTime time =
      run_time(plan, {.steps = 10, .tokens_a_step = 250, .planned_tokens_a_step = 1000});
  EXPECT_DOUBLE_EQ(time.seconds_a_step, 2 + 4 * 0.25);
  EXPECT_DOUBLE_EQ(time.seconds(), 30);
}

TEST(RunTime, AnEvaluationCountsEachTimeAndATokenOfItHalf) {
  const RunTime time = run_time(plan_of({{"linear", 4}}), {.steps = 1,
                                                           .tokens_a_step = 1000,
                                                           .planned_tokens_a_step = 1000,
                                                           .evaluations = 3,
                                                           .tokens_an_evaluation = 500});
  EXPECT_DOUBLE_EQ(time.evaluation_seconds, 3.0);
  EXPECT_DOUBLE_EQ(time.seconds(), 7.0);
}

TEST(RunTime, AStepTakesNoLessThanItsFetching) {
  TimePlan plan = plan_of({{"linear", 4}});
  plan.fetch.seconds = 3;
  RunLength length = {.steps = 2,
                      .tokens_a_step = 1000,
                      .planned_tokens_a_step = 1000,
                      .evaluations = 1,
                      .tokens_an_evaluation = 1000};
  EXPECT_DOUBLE_EQ(run_time(plan, length).seconds_a_step, 4);
  length.tokens_a_step = 500;
  EXPECT_DOUBLE_EQ(run_time(plan, length).seconds_a_step, 3);
  EXPECT_DOUBLE_EQ(run_time(plan, length).evaluation_seconds, 2);
  plan.fetch.seconds = 8;
  EXPECT_DOUBLE_EQ(run_time(plan, length).seconds_a_step, 8);
  EXPECT_DOUBLE_EQ(run_time(plan, length).evaluation_seconds, 4);
}

TEST(RunTime, TheRanksSumsComeAfterTheSlowerOfProductsAndFetching) {
  TimePlan plan = plan_of({{"linear", 4}});
  plan.fetch.seconds = 5;
  const RunLength length = {
      .steps = 3, .tokens_a_step = 1000, .planned_tokens_a_step = 1000, .sum_seconds = 0.5};
  EXPECT_DOUBLE_EQ(run_time(plan, length).seconds_a_step, 5.5);
  EXPECT_DOUBLE_EQ(run_time(plan, length).step_seconds(), 16.5);
}

TEST(RunTime, ItsSentenceRoundsTheWholeAndLeavesOutEvaluationsThatAreNot) {
  EXPECT_EQ((RunTime{30, 5.33, 20}.to_text()),
            "5.3 s a step, 30 steps: 2:40, with evaluations about 3 min");
  EXPECT_EQ((RunTime{30, 5.33, 0}.to_text()), "5.3 s a step, 30 steps: 2:40");
  EXPECT_EQ((RunTime{1000, 83.4, 3600}.to_text()),
            "83 s a step, 1000 steps: 23:10:00, with evaluations about 24.2 h");
}

}  // namespace
}  // namespace qlora::trainer
