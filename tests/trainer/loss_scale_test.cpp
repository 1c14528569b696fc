#include "trainer/loss_scale.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
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

// The first averages of Adam after one step, (1 - beta1) times the gradients it was given.
at::Tensor first_averages(const SmallRun& small) {
  std::vector<at::Tensor> all;
  for (const auto& [name, tensor] : small.optimizer->state())
    if (name.ends_with(".state1")) all.push_back(tensor.flatten());
  return at::cat(all);
}

TEST(Float16Run, TheScaleIsDividedOutOfTheLossTheNormAndTheUpdate) {
  double norm = 0;
  const auto one_step = [&](at::ScalarType compute, double scale) {
    SmallRun small(1, kLoading, compute);
    small.state.loss_scale.value = scale;
    small.job->max_grad_norm = 1e-2;
    small.job->report = [&](const StepMetrics& m) {
      small.losses.push_back(m.loss);
      norm = m.grad_norm;
    };
    run(*small.job);
    return std::make_pair(small.losses[0], first_averages(small));
  };
  const auto [loss, averages] = one_step(at::kFloat, 1.0);
  const double exact_norm = norm;
  EXPECT_GT(exact_norm, 1e-2);  // so clipping takes place
  EXPECT_NEAR(averages.norm().item<double>(), 0.1 * 1e-2, 1e-6);
  for (const double scale : {1024.0, 8192.0}) {
    const auto [half_loss, half_averages] = one_step(at::kHalf, scale);
    // Some ten or twenty roundings of 2^-11 each lie between the loss and a gradient.
    EXPECT_NEAR(half_loss, loss, 0.01 * loss);
    EXPECT_NEAR(norm, exact_norm, 0.01 * exact_norm);
    EXPECT_LT((half_averages - averages).norm().item<double>(),
              0.01 * averages.norm().item<double>());
  }
}

TEST(Float16Run, AGradientThatOverflowsAtEveryScaleEndsTheRun) {
  SmallRun small(40, kLoading, at::kHalf);
  {
    // dB = scaling · dyᵀ (x Aᵀ) leaves even fp32, while B = 0 keeps the forward pass as it was.
    at::NoGradGuard no_grad;
    at::Tensor(small.adapters->values()).mul_(1000);
    small.adapters->publish();
  }
  small.model->layers[1].branches[1].out.layers()[0].adapter->scaling = 1e38;
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
  small.model->layers[1].branches[1].out.layers()[0].adapter->scaling = 1e38;
  EXPECT_THROW(run(*small.job), DivergenceError);
  EXPECT_EQ(small.state.step, 0);
  EXPECT_EQ(small.state.loss_scale.value, 1.0);
}

}  // namespace
}  // namespace qlora::trainer
