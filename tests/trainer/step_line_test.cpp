#include "trainer/step_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trainer/run_time.h"

namespace qlora::trainer {
namespace {

StepMetrics some_step() {
  StepMetrics m;
  m.step = 22;
  m.total_steps = 30;
  m.epoch = 1.4666;
  m.loss = 0.01734;
  m.learning_rate = 2.34e-4;
  m.grad_norm = 0.084;
  m.tokens = 1000;
  m.supervised_tokens = 320;
  m.step_seconds = 0.5;
  m.peak_memory_bytes = 620'000'000;
  return m;
}

TEST(StepLine, HasEverythingWhereThereIsRoom) {
  EXPECT_EQ(step_line(some_step(), 3725),
            "step   22/30  epoch 1.47  loss 0.0173  lr 2.34e-04  grad 0.084    2000 tok/s  "
            "supervised  32%  0.62 GB  1:02:05 left");
}

TEST(StepLine, OfPairsItHasTheirMarginAndAccuracyBehindTheLoss) {
  StepMetrics m = some_step();
  m.preference =
      PreferenceMetrics{.chosen_reward = 0.5, .rejected_reward = -0.25, .accuracy = 0.75};
  EXPECT_EQ(step_line(m, 3725),
            "step   22/30  epoch 1.47  loss 0.0173  margin 0.750  accuracy  75%  lr 2.34e-04  "
            "grad 0.084    2000 tok/s  supervised  32%  0.62 GB  1:02:05 left");
  EXPECT_LE(step_line(m, 5, 80).size(), 80u);
}

TEST(StepLine, InEightyColumnsItKeepsWhatIsWatched) {
  EXPECT_EQ(step_line(some_step(), 5, 80),
            "step   22/30  epoch 1.47  loss 0.0173  lr 2.34e-04    2000 tok/s  0:05 left");
}

TEST(StepLine, FitsEveryWidthAndNeverLeavesOutStepLossAndTimeLeft) {
  for (size_t width = 40; width < 130; ++width) {
    const std::string line = step_line(some_step(), 5, width);
    EXPECT_LE(line.size(), width);
    EXPECT_THAT(line, testing::AllOf(testing::HasSubstr("22/30"), testing::HasSubstr("loss 0.0173"),
                                     testing::HasSubstr("0:05 left")));
  }
}

TEST(StepLine, ColourTakesNoColumns) {
  std::string line = step_line(some_step(), 5, 80, true);
  EXPECT_THAT(line, testing::HasSubstr("\x1b[1m0.0173\x1b[0m"));
  for (size_t at = line.find('\x1b'); at != std::string::npos; at = line.find('\x1b'))
    line.erase(at, line.find('m', at) - at + 1);
  EXPECT_EQ(line, step_line(some_step(), 5, 80));
}

TEST(EvaluationsAfter, CountTheOnesOnTheWayAndTheLast) {
  EXPECT_EQ(evaluations_after(0, 10, 3), 4);  // 3, 6, 9 and 10
  EXPECT_EQ(evaluations_after(6, 10, 3), 2);
  EXPECT_EQ(evaluations_after(9, 10, 5), 1);
  EXPECT_EQ(evaluations_after(0, 10, 0), 1);
  EXPECT_EQ(evaluations_after(10, 10, 3), 0);
}

}  // namespace
}  // namespace qlora::trainer
