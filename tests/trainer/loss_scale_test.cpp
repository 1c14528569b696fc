#include "trainer/loss_scale.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "tests/support/small_run.h"

namespace qlora::trainer {
namespace {

using test::SmallRun;

const data::LoaderOptions kLoading{24, true, true, 2, 2, 5};

TEST(LossScale, DoublesAfterTwoThousandGoodStepsInARow) {
  LossScale scale{8.0, 0};
  for (int i = 0; i < kStepsBetweenGrowth - 1; ++i) scale.good();
  EXPECT_EQ(scale.value, 8.0);
  scale.good();
  EXPECT_EQ(scale.value, 16.0);
  for (int i = 0; i < kStepsBetweenGrowth - 1; ++i) scale.good();
  EXPECT_TRUE(scale.overflowed());  // the row begins anew
  EXPECT_EQ(scale.value, 8.0);
  for (int i = 0; i < kStepsBetweenGrowth - 1; ++i) scale.good();
  EXPECT_EQ(scale.value, 8.0);
}

TEST(LossScale, BelowOneThereIsNothingLeftToTry) {
  LossScale scale{4.0, 0};
  EXPECT_TRUE(scale.overflowed());
  EXPECT_TRUE(scale.overflowed());
  EXPECT_EQ(scale.value, 1.0);
  EXPECT_FALSE(scale.overflowed());
}

TEST(Float16Run, LearnsAsAFloat32RunDoes) {
  SmallRun half(10, kLoading, at::kHalf), whole(10, kLoading, at::kFloat);
  half.state.loss_scale.value = 1024;  // no step of these overflows
  run(*half.job);
  EXPECT_EQ(half.optimizer->num_steps(), 10);
  run(*whole.job);
  // The first loss is that of the base: weights and activations are rounded to 11 bits, and a loss
  // of some nats over some ten roundings in a row moves by less than 10 · 2^-11 of it.
  EXPECT_NEAR(half.losses[0], whole.losses[0], 10.0 / 2048 * whole.losses[0]);
  // Adam makes steps of full size of gradients that are nearly zero, whose sign rounding decides.
  for (size_t i = 0; i < 10; ++i)
    EXPECT_NEAR(half.losses[i], whole.losses[i], 0.02 * whole.losses[i]) << i;
  EXPECT_LT(half.losses.back(), half.losses.front());
}

TEST(Float16Run, AResumedRunRepeatsTheUnbrokenOneBitForBit) {
  // Begins with a scale that overflows, so that steps are left out before and after the break.
  const auto start = [](SmallRun& small) { small.state.loss_scale.value = std::ldexp(1.0, 24); };
  SmallRun unbroken(10, kLoading, at::kHalf);
  start(unbroken);
  run(*unbroken.job);
  EXPECT_LT(unbroken.optimizer->num_steps(), 10);
  EXPECT_GT(unbroken.optimizer->num_steps(), 0);
  for (const int64_t stop : {1, 5}) {
    SmallRun first(stop, kLoading, at::kHalf), second(10, kLoading, at::kHalf);
    start(first);
    run(*first.job);
    second.go_on_from(first);
    run(*second.job);
    EXPECT_TRUE(at::equal(second.adapters->values(), unbroken.adapters->values())) << stop;
    EXPECT_EQ(second.losses,
              std::vector<double>(unbroken.losses.begin() + stop, unbroken.losses.end()));
    EXPECT_EQ(second.state.loss_scale.value, unbroken.state.loss_scale.value);
    EXPECT_EQ(second.state.loss_scale.good_steps, unbroken.state.loss_scale.good_steps);
  }
}

TEST(Float16Run, AnOverflowLeavesTheStepOutAndHalvesTheScale) {
  SmallRun small(1, kLoading, at::kHalf);
  small.state.loss_scale = {std::ldexp(1.0, 40), 7};
  const at::Tensor before = small.adapters->values().clone();
  EXPECT_EQ(run(*small.job), Outcome::kFinished);
  EXPECT_TRUE(at::equal(small.adapters->values(), before));
  EXPECT_EQ(small.optimizer->num_steps(), 0);
  EXPECT_EQ(small.state.step, 1);  // its rows and its rate are used up
  EXPECT_EQ(small.state.loss_scale.value, std::ldexp(1.0, 39));
  EXPECT_EQ(small.state.loss_scale.good_steps, 0);
  EXPECT_TRUE(std::isfinite(small.losses[0]));
}

TEST(Float16Run, TheScaleGrowsInTheRun) {
  SmallRun small(2, kLoading, at::kHalf);
  small.state.loss_scale = {1024.0, kStepsBetweenGrowth - 2};
  run(*small.job);
  EXPECT_EQ(small.state.loss_scale.value, 2048.0);
  EXPECT_EQ(small.state.loss_scale.good_steps, 0);
}

TEST(Float16Run, TheScaleIsDividedOutOfTheLossTheNormAndTheUpdate) {
  // Another power of two changes no bit where nothing over- or underflows; the tiny model's
  // gradients lie above float16's subnormals at both. Clipped to a hundredth of their norm.
  std::vector<std::vector<double>> norms(2);
  std::vector<at::Tensor> values;
  std::vector<std::vector<double>> losses;
  for (const int i : {0, 1}) {
    SmallRun small(3, kLoading, at::kHalf);
    small.state.loss_scale.value = i == 0 ? 1024.0 : 2048.0;
    small.job->max_grad_norm = 1e-2;
    small.job->report = [&](const StepMetrics& m) {
      small.losses.push_back(m.loss);
      norms[static_cast<size_t>(i)].push_back(m.grad_norm);
    };
    run(*small.job);
    values.push_back(small.adapters->values().clone());
    losses.push_back(small.losses);
  }
  for (size_t step = 0; step < 3; ++step) {
    EXPECT_NEAR(losses[0][step], losses[1][step], 1e-3 * losses[0][step]);
    EXPECT_NEAR(norms[0][step], norms[1][step], 1e-2 * norms[0][step]);
    EXPECT_GT(norms[0][step], 1e-2);  // so clipping took place
  }
  EXPECT_TRUE(at::allclose(values[0], values[1], 0, 1e-3));  // three steps of 1e-2
}

TEST(Float16Run, AGradientThatOverflowsAtEveryScaleEndsTheRun) {
  SmallRun small(40, kLoading, at::kHalf);
  {
    // dB = scaling · dyᵀ (x Aᵀ) leaves even fp32, while B = 0 keeps the forward pass as it was.
    at::NoGradGuard no_grad;
    at::Tensor(small.adapters->values()).mul_(1000);
    small.adapters->publish();
  }
  small.model->layers[1].down.layers()[0].adapter->scaling = 1e38;
  const at::Tensor before = small.adapters->values().clone();
  EXPECT_THROW(run(*small.job), DivergenceError);
  EXPECT_EQ(small.state.step, 16);  // 65,536 = 2^16, halved to 1
  EXPECT_EQ(small.optimizer->num_steps(), 0);
  EXPECT_TRUE(at::equal(small.adapters->values(), before));
}

TEST(Float16Run, ABfloat16RunKnowsNoScaleAndStopsAtOnce) {
  SmallRun small(10);
  {
    at::NoGradGuard no_grad;
    at::Tensor(small.adapters->values()).mul_(1000);
    small.adapters->publish();
  }
  small.model->layers[1].down.layers()[0].adapter->scaling = 1e38;
  EXPECT_THROW(run(*small.job), DivergenceError);
  EXPECT_EQ(small.state.step, 0);
  EXPECT_EQ(small.state.loss_scale.value, 1.0);
}

}  // namespace
}  // namespace qlora::trainer
