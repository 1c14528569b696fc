#include "optim/lr_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace qlora::optim {
namespace {

OptimizerOptions with(const std::string& schedule, int64_t warmup_steps = 0,
                      double warmup_ratio = 0) {
  OptimizerOptions options;
  options.schedule = schedule;
  options.lr = 1.0;
  options.warmup_steps = warmup_steps;
  options.warmup_ratio = warmup_ratio;
  return options;
}

TEST(LrSchedule, EqualsTransformersAtEveryStep) {
  std::ifstream golden(QLORA_TEST_GOLDEN "/optim/lr_schedule.txt");
  std::string schedule;
  int64_t warmup, horizon, step;
  double factor;
  int rows = 0;
  for (; golden >> schedule >> warmup >> horizon >> step >> factor; ++rows)
    // Both compute in double; only the last bit of the cosine may depend on the C library.
    EXPECT_NEAR(LrSchedule(with(schedule, warmup), horizon).at(step), factor, 1e-15)
        << schedule << ' ' << warmup << ' ' << horizon << ' ' << step;
  EXPECT_GE(rows, 200);
}

TEST(LrSchedule, TheFirstStepAfterWarmUpHasThePeakRate) {
  for (const char* name : {"constant", "linear", "cosine"}) {
    OptimizerOptions options = with(name, 5);
    options.lr = 3e-4;
    const LrSchedule schedule(options, 100);
    EXPECT_EQ(schedule.at(0), 0.0) << name;
    EXPECT_LT(schedule.at(4), 3e-4) << name;
    EXPECT_EQ(schedule.at(5), 3e-4) << name;
  }
}

TEST(LrSchedule, TheRatioIsRoundedUpAndStepsWinOverIt) {
  EXPECT_EQ(LrSchedule(with("cosine", 0, 0.03), 10).warmup_steps(), 1);
  EXPECT_EQ(LrSchedule(with("cosine", 0, 0.03), 200).warmup_steps(), 6);
  EXPECT_EQ(LrSchedule(with("cosine", 0, 0.0), 200).warmup_steps(), 0);
  EXPECT_EQ(LrSchedule(with("cosine", 2, 0.5), 200).warmup_steps(), 2);
}

TEST(LrSchedule, PastTheHorizonTheRateStays) {
  for (const int64_t step : {10, 11, 15, 20, 1000}) {
    EXPECT_EQ(LrSchedule(with("linear"), 10).at(step), 0.0);
    EXPECT_EQ(LrSchedule(with("cosine"), 10).at(step), 0.0);
    EXPECT_EQ(LrSchedule(with("constant"), 10).at(step), 1.0);
  }
}

TEST(LrSchedule, DecayNeverRisesAfterWarmUp) {
  for (const char* name : {"linear", "cosine"}) {
    const LrSchedule schedule(with(name, 7), 50);
    for (int64_t step = 7; step < 60; ++step)
      EXPECT_GE(schedule.at(step), schedule.at(step + 1)) << name << step;
  }
}

TEST(LrSchedule, RefusesAnUnknownNameAnEmptyHorizonAndANegativeStep) {
  EXPECT_THROW(LrSchedule(with("polynomial"), 10), ConfigError);
  EXPECT_THROW(LrSchedule(with("cosine"), 0), ConfigError);
  EXPECT_THROW(LrSchedule(with("cosine"), 10).at(-1), Error);
}

}  // namespace
}  // namespace qlora::optim
