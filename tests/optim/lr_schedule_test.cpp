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
  for (; golden >> schedule >> warmup >> horizon >> step >> factor; ++rows) {
    OptimizerOptions options = with(schedule == "cosine_min" ? "cosine" : schedule, warmup);
    options.min_lr_ratio = schedule == "cosine_min" ? 0.1 : schedule == "polynomial" ? 0.2 : 0.0;
    options.num_cycles = 3;
    options.power = 2.0;
    options.decay_ratio = 0.2;
    // Both compute in double; the last bits depend on the C library and on how a quotient is put.
    EXPECT_NEAR(LrSchedule(options, horizon).at(step), factor, 4e-15)
        << schedule << ' ' << warmup << ' ' << horizon << ' ' << step;
  }
  EXPECT_GE(rows, 500);
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
  for (const char* name : {"linear", "cosine", "polynomial", "inverse_sqrt", "wsd"}) {
    const LrSchedule schedule(with(name, 7), 50);
    for (int64_t step = 7; step < 60; ++step)
      EXPECT_GE(schedule.at(step), schedule.at(step + 1)) << name << step;
  }
}

TEST(LrSchedule, RefusesAnUnknownNameAnEmptyHorizonAndANegativeStep) {
  EXPECT_THROW(LrSchedule(with("exponential"), 10), ConfigError);
  EXPECT_THROW(LrSchedule(with("cosine"), 0), ConfigError);
  EXPECT_THROW(LrSchedule(with("cosine"), 10).at(-1), Error);
}

TEST(Plateau, FallsOnceMoreEvaluationsThanThePatienceGainNothing) {
  OptimizerOptions options;
  options.schedule = "reduce_on_plateau";
  options.plateau_factor = 0.5;
  options.plateau_patience = 1;
  options.min_lr_ratio = 0.2;
  Plateau plateau;
  const auto factor_after = [&](double loss) {
    plateau.evaluated(loss, options);
    return plateau.factor;
  };
  EXPECT_EQ(factor_after(2.0), 1.0);
  EXPECT_EQ(factor_after(1.0), 1.0);      // a gain
  EXPECT_EQ(factor_after(0.99999), 1.0);  // too small a gain: stale
  EXPECT_EQ(factor_after(1.5), 0.5);      // the second in a row
  EXPECT_EQ(factor_after(1.5), 0.5);
  EXPECT_EQ(factor_after(1.5), 0.25);
  EXPECT_EQ(factor_after(1.5), 0.25);
  EXPECT_EQ(factor_after(1.5), 0.2);  // not below the least
  EXPECT_DOUBLE_EQ(LrSchedule(options, 100).at(99), options.lr);
}

// tests/interop/torch_plateau.py wrote the file.
TEST(Plateau, FollowsTheLossAsTorchsScheduler) {
  std::ifstream golden(QLORA_TEST_GOLDEN "/optim/plateau.txt");
  OptimizerOptions options;
  Plateau plateau;
  double loss, rate;
  int rows = 0;
  for (int64_t evaluation; golden >> options.plateau_factor >> options.plateau_patience >>
                           options.min_lr_ratio >> evaluation >> loss >> rate;
       ++rows) {
    if (evaluation == 0) plateau = {};
    plateau.evaluated(loss, options);
    EXPECT_DOUBLE_EQ(plateau.factor, rate) << rows;
  }
  EXPECT_EQ(rows, 240);
}

TEST(LrSchedule, WhetherStepsPastItsEndTrainNothing) {
  for (const int64_t warmup : {0, 3, 10, 20}) {
    const auto ends_at_zero = [warmup](const char* name, double least) {
      OptimizerOptions options = with(name, warmup);
      options.min_lr_ratio = least;
      const LrSchedule schedule(options, 10);
      EXPECT_EQ(schedule.ends_at_zero(), schedule.at(1000) == 0) << name << ' ' << warmup;
      return schedule.ends_at_zero();
    };
    EXPECT_TRUE(ends_at_zero("linear", 0.1)) << warmup;
    for (const char* name : {"cosine", "cosine_with_restarts", "polynomial", "wsd"}) {
      EXPECT_TRUE(ends_at_zero(name, 0)) << name << ' ' << warmup;
      EXPECT_FALSE(ends_at_zero(name, 0.1)) << name << ' ' << warmup;
    }
    for (const char* name : {"constant", "inverse_sqrt", "reduce_on_plateau"})
      EXPECT_FALSE(ends_at_zero(name, 0)) << name << ' ' << warmup;
  }
}

TEST(LrSchedule, AWarmupThatTakesAllStepsIsToldOf) {
  const auto told = [](int64_t warmup_steps, double warmup_ratio, int64_t steps) {
    return rate_sentence(LrSchedule(with("cosine", warmup_steps, warmup_ratio), steps), steps);
  };
  EXPECT_EQ(told(0, 0, 1), "");
  EXPECT_EQ(told(9, 0, 10), "");
  EXPECT_EQ(told(0, 0.5, 10), "");
  EXPECT_EQ(told(10, 0, 10),
            "optim.warmup_steps, optim.warmup_ratio: the warm-up takes 10 steps and the run has "
            "10: the learning rate goes from 0 to 0.9 and never reaches optim.lr; lower what is "
            "set of the two");
  EXPECT_THAT(told(100, 0, 10), testing::HasSubstr("from 0 to 0.09 and"));
  EXPECT_THAT(told(0, 1, 10), testing::HasSubstr("takes 10 steps"));
  EXPECT_THAT(told(0, 0.03, 1), testing::HasSubstr("the learning rate of its one step is 0"));
}

TEST(LrSchedule, APeakOfZeroIsToldOf) {
  OptimizerOptions options = with("constant", 2);
  options.lr = 0;
  for (const int64_t steps : {1, 10})
    EXPECT_EQ(rate_sentence(LrSchedule(options, steps), steps),
              "optim.lr is 0: the run trains nothing");
}

}  // namespace
}  // namespace qlora::optim