#include "trainer/train_loop.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "tests/support/small_run.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

using test::SmallRun;

TEST(TrainLoop, AResumedRunRepeatsTheUnbrokenOneBitForBit) {
  SmallRun unbroken(10);
  EXPECT_EQ(run(*unbroken.job), Outcome::kFinished);

  SmallRun first(5);  // stops in the middle of an epoch
  run(*first.job);
  SmallRun second(10);
  second.go_on_from(first);
  run(*second.job);

  EXPECT_TRUE(at::equal(second.adapters->values(), unbroken.adapters->values()));
  EXPECT_EQ(second.losses, std::vector<double>(unbroken.losses.begin() + 5, unbroken.losses.end()));
  EXPECT_LT(unbroken.losses.back(), unbroken.losses.front());
}

TEST(TrainLoop, BFloat16MastersResumeFromTheirBFloat16CopiesBitForBit) {
  lora::LoraOptions lora;
  lora.rank = 4;
  lora.modules_to_save = {"embed_tokens", "norm"};
  lora.ensure_weight_tying = true;
  lora.dtype = "bfloat16";
  const auto make = [&](int64_t steps, bool stochastic) {
    auto small = std::make_unique<SmallRun>(steps, data::LoaderOptions{24, true, true, 2, 2, 5},
                                            at::kBFloat16, &lora);
    small->job->rounding = {true, stochastic, 5};
    return small;
  };
  const auto unbroken = make(8, true), first = make(3, true), second = make(8, true);
  run(*unbroken->job);
  run(*first->job);
  {
    at::NoGradGuard no_grad;
    at::Tensor masters = second->adapters->values();
    masters.copy_(first->adapters->values().to(at::kBFloat16));  // as they are saved
    second->adapters->publish();
  }
  second->optimizer->load_state(first->optimizer->state(), first->optimizer->num_steps());
  second->state = first->state;
  run(*second->job);
  EXPECT_TRUE(at::equal(second->adapters->values(), unbroken->adapters->values()));
  const auto nearest = make(8, false);
  run(*nearest->job);
  EXPECT_FALSE(at::equal(nearest->adapters->values(), unbroken->adapters->values()));
}

TEST(TrainLoop, RecomputationChangesNoBit) {
  SmallRun plain(4), recomputing(4);
  recomputing.state.choices.recompute_layers = true;
  run(*plain.job);
  run(*recomputing.job);
  EXPECT_TRUE(at::equal(plain.adapters->values(), recomputing.adapters->values()));
}

TEST(TrainLoop, EightTimesOneRowEqualsOneTimesEightRows) {
  // Unpacked, so that both deal the same rows into a step. bf16 products of other heights: equal
  // within rounding.
  SmallRun many(1, {24, false, true, 1, 8, 5}), one(1, {24, false, true, 8, 1, 5});
  const double a = accumulate_gradients(*many.job, many.loader->next());
  const double b = accumulate_gradients(*one.job, one.loader->next());
  EXPECT_NEAR(a, b, 2e-3 * b);
}

TEST(TrainLoop, AStopRequestSavesAndEndsBetweenSteps) {
  SmallRun small(10);
  std::atomic<bool> stop = false;
  small.job->stop = &stop;
  small.job->report = [&](const StepMetrics& m) { stop = m.step == 3; };
  EXPECT_EQ(run(*small.job), Outcome::kInterrupted);
  EXPECT_EQ(small.state.step, 3);
  EXPECT_EQ(small.saves, 1);
}

TEST(TrainLoop, ANonFiniteLossStopsBeforeTheOptimizerSeesIt) {
  SmallRun small(10);
  at::NoGradGuard no_grad;
  at::Tensor norm = small.model->final_norm.frozen;
  norm.fill_(std::numeric_limits<float>::infinity());
  const at::Tensor before = small.adapters->values().clone();
  at::AutoGradMode with_grad(true);
  EXPECT_THROW(run(*small.job), DivergenceError);
  EXPECT_EQ(small.state.step, 0);
  EXPECT_TRUE(at::equal(small.adapters->values(), before));
}

}  // namespace
}  // namespace qlora::trainer
