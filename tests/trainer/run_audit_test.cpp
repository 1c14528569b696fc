#include "trainer/run_audit.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "tests/support/small_run.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

using test::SmallRun;
using testing::AllOf;
using testing::HasSubstr;

// A run whose adapters belong to another model: no gradient ever reaches them.
struct UnreachedRun : SmallRun {
  std::unique_ptr<model::CausalLm> other_model = test::tiny_model(at::kBFloat16, 2);
  std::unique_ptr<lora::AdapterSet> other_adapters = test::tiny_adapters(*other_model, false);
  std::unique_ptr<TrainJob> unreached;

  explicit UnreachedRun(int64_t total_steps) : SmallRun(total_steps) {
    unreached.reset(new TrainJob{*model, *other_adapters, *optimizer, job->parameters,
                                 optim::LrSchedule(options, 100), *loader, state});
    unreached->total_steps = total_steps;
    unreached->report = job->report;
    unreached->evaluate = job->evaluate;
    unreached->save = job->save;
  }
};

std::string refusal_of(TrainJob& job) {
  try {
    run(job);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(RunAudit, ABlockThatStartsAtZeroTrains) {
  SmallRun small(6);
  {
    at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : small.model->frozen_state())
      if (name.find("layers.1.self_attn.o_proj") != std::string::npos ||
          name.find("layers.1.mlp.down_proj") != std::string::npos)
        tensor.zero_();
  }
  accumulate_gradients(*small.job, small.loader->next());
  int64_t without = 0;
  for (const auto& tensor : small.adapters->tensors())
    if (tensor.name.ends_with("lora_B.weight"))
      without += tensor.gradient.abs().max().item<float>() == 0;
  ASSERT_EQ(without, 5);  // q, k, v, gate and up of the block
  EXPECT_EQ(run(*small.job), Outcome::kFinished);
  EXPECT_EQ(small.state.step, 6);
}

TEST(RunAudit, WhatGetsNoGradientInTwentyUpdatesIsNamedWithTheKeyThatTrainsOn) {
  UnreachedRun unreached(30);
  EXPECT_THAT(refusal_of(*unreached.unreached),
              AllOf(HasSubstr("step 21: 28 trained tensors got no gradient in 20 updates"),
                    HasSubstr("layers.0.self_attn.q_proj.lora_A.weight"), HasSubstr("lora.targets"),
                    HasSubstr("train.audit=false")));
  EXPECT_EQ(unreached.state.step, 20);
}

TEST(RunAudit, AHardRowAtTheEndOfThemIsNoDivergence) {
  UnreachedRun unreached(30);
  at::Tensor gradients = unreached.other_adapters->gradients();
  gradients.zero_();
  RunAudit audit(*unreached.unreached);
  for (int64_t i = 0; i < GradientAudit::kAuditedUpdates; ++i) {
    audit.look(0.5, 1e-6);
    audit.count_update(1e-6);
  }
  EXPECT_THAT([&] { audit.look(3.0, 1e-6); },
              testing::ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("train.audit=false"), HasSubstr("the loss is 3 and was 0.5"))));
}

TEST(RunAudit, CanBeTurnedOff) {
  UnreachedRun unreached(25);
  unreached.unreached->audit = false;
  EXPECT_EQ(run(*unreached.unreached), Outcome::kFinished);
}

TEST(RunAudit, AShortRunIsWarnedAndNotRefused) {
  UnreachedRun unreached(5);
  EXPECT_EQ(run(*unreached.unreached), Outcome::kFinished);
}

TEST(RunAudit, AResumedRunIsWatchedAnewForAsLong) {
  UnreachedRun first(10);
  run(*first.unreached);
  UnreachedRun second(40);
  second.go_on_from(first);
  EXPECT_THAT(refusal_of(*second.unreached), HasSubstr("step 31: "));
}

TEST(RunAudit, ARunThatIsResumedLaterIsNotWatchedAgain) {
  SmallRun first(GradientAudit::kAuditedUpdates);
  run(*first.job);
  UnreachedRun second(50);
  second.go_on_from(first);
  EXPECT_EQ(run(*second.unreached), Outcome::kFinished);
}

TEST(RunAudit, UpdatesWithALearningRateOfZeroProveNothing) {
  SmallRun small(1);
  GradientAudit audit(*small.adapters, 0);
  for (int i = 0; i < 50; ++i) audit.count_update(0.0);
  EXPECT_FALSE(audit.is_over());
  for (int i = 0; i < 20; ++i) audit.count_update(1e-4);
  EXPECT_TRUE(audit.is_over());
}

TEST(LossAudit, ThreeStepsInARowAboveTwiceTheFirstAndAboveGuessingAreADivergence) {
  SeenLosses seen;
  LossAudit audit(512, seen);  // guessing: 6.24
  EXPECT_FALSE(audit.has_diverged(2.6));
  EXPECT_DOUBLE_EQ(audit.bound(), std::log(512.0));
  for (const double loss : {6.0, 13.8, 10.9, 6.1, 7.0, 8.0}) EXPECT_FALSE(audit.has_diverged(loss));
  EXPECT_TRUE(audit.has_diverged(7.5));
}

TEST(LossAudit, RowsThatAreOddFromTheFirstOnAreNone) {
  SeenLosses seen;
  LossAudit audit(512, seen);
  for (const double loss : {23.5, 30.0, 35.0, 28.0, 25.0}) EXPECT_FALSE(audit.has_diverged(loss));
}

TEST(LossAudit, WhatHasSeenTheFirstLossesGoesOnFromThem) {
  SeenLosses seen;
  {
    LossAudit audit(512, seen);
    for (const double loss : {2.6, 7.0, 7.0}) EXPECT_FALSE(audit.has_diverged(loss));
  }
  EXPECT_EQ(seen, (SeenLosses{2.6, 2}));
  EXPECT_TRUE(LossAudit(512, seen).has_diverged(7.0));
}

// A run whose rate is far too high, up to its divergence or to step `last`; what it says then.
std::string divergence_of(SmallRun& small, int64_t last = 30) {
  optim::OptimizerOptions options;
  options.schedule = "constant";
  options.lr = 20;
  small.job->schedule = optim::LrSchedule(options, 30);
  small.job->total_steps = last;
  try {
    run(*small.job);
  } catch (const DivergenceError& error) {
    return error.what();
  }
  return "";
}

TEST(RunAudit, ALearningRateThatIsFarTooHighIsADivergenceThatNamesIt) {
  SmallRun small(30);
  EXPECT_THAT(divergence_of(small), HasSubstr("lower optim.lr"));
}

TEST(RunAudit, AResumedRunIsADivergenceAtTheStepOfTheUnbrokenOne) {
  SmallRun unbroken(30), first(30), second(30);
  const std::string said = divergence_of(unbroken);
  ASSERT_GE(unbroken.state.step, 3) << said;
  ASSERT_EQ(divergence_of(first, 2), "");
  second.go_on_from(first);
  EXPECT_EQ(divergence_of(second), said);
  EXPECT_EQ(second.state.step, unbroken.state.step);
}

}  // namespace
}  // namespace qlora::trainer
