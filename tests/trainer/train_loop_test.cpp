#include "trainer/train_loop.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "base/error.h"
#include "base/stop.h"
#include "tests/support/small_run.h"
#include "trainer/evaluate.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

using test::SmallRun;

// Losses as a GPU gives them, which are known only when they are asked for. That of micro-batch
// `spoilt`, counted from the first of the run, is not a number.
class LateLosses final : public Objective {
 public:
  explicit LateLosses(int spoilt = -1) : spoilt_(spoilt) {}
  void begin(const data::StepWindow& window, double loss_scale) override {
    plain_->begin(window, loss_scale);
  }
  MicroBatchLoss loss(model::CausalLm& model, const model::ForwardInput& input,
                      const data::MicroBatch& batch) override {
    MicroBatchLoss loss = plain_->loss(model, input, batch);
    const double factor = num_losses_++ == spoilt_ ? std::numeric_limits<double>::quiet_NaN() : 2.0;
    loss.value = LateNumber(loss.scaled_loss.to(at::kDouble) * factor, 2.0);
    return loss;
  }

 private:
  std::unique_ptr<Objective> plain_ = cross_entropy_objective();
  int spoilt_, num_losses_ = 0;
};

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
  const double a = accumulate_gradients(*many.job, many.loader->next()).value;
  const double b = accumulate_gradients(*one.job, one.loader->next()).value;
  EXPECT_NEAR(a, b, 2e-3 * b);
}

TEST(TrainLoop, AStopBetweenStepsSavesAndAbandonsNothing) {
  SmallRun small(10);
  std::atomic<bool> stop = false;
  const ObeyStop obey(stop);
  small.job->report = [&](const StepMetrics& m) { stop = m.step == 3; };
  EXPECT_EQ(run(*small.job), Outcome::kInterrupted);
  EXPECT_EQ(small.state.step, 3);
  EXPECT_EQ(small.saves, 1);
  EXPECT_EQ(small.job->stopped->total, 0);
}

TEST(TrainLoop, AStepIsLeftBetweenItsMicroBatchesAndTakenAgainToTheSameBits) {
  SmallRun unbroken(6);
  run(*unbroken.job);

  SmallRun first(3);
  run(*first.job);
  const at::Tensor before = first.adapters->values().clone();
  {
    const std::atomic<bool> stop = true;
    const ObeyStop obey(stop);
    try {
      accumulate_gradients(*first.job, first.loader->next());
      FAIL() << "went on";
    } catch (const Stopped& stopped) {
      EXPECT_EQ(stopped.done, 1);
      EXPECT_EQ(stopped.total, 2);
    }
  }
  EXPECT_TRUE(at::equal(first.adapters->values(), before));
  SmallRun second(6);
  second.go_on_from(first);
  run(*second.job);
  EXPECT_TRUE(at::equal(second.adapters->values(), unbroken.adapters->values()));
  first.job->total_steps = 6;  // the one that was left can go on itself
  run(*first.job);
  EXPECT_TRUE(at::equal(first.adapters->values(), unbroken.adapters->values()));
}

TEST(TrainLoop, AnEvaluationThatWasLeftIsDoneAgainAndNoOther) {
  std::vector<int64_t> evaluated;
  const auto evaluate = [&evaluated](SmallRun& small) {
    small.job->eval_every = 2;
    small.job->evaluate = [&evaluated, &small] {
      leave_if_stop_wanted();
      evaluated.push_back(small.state.step);
    };
  };
  SmallRun first(6);
  evaluate(first);
  std::atomic<bool> stop = false;
  const ObeyStop obey(stop);
  first.job->report = [&](const StepMetrics& m) { stop = m.step == 4; };
  EXPECT_EQ(run(*first.job), Outcome::kInterrupted);
  EXPECT_TRUE(first.state.evaluation_due);
  EXPECT_EQ(first.state.step, 4);
  EXPECT_EQ(first.saves, 1);
  EXPECT_EQ(evaluated, std::vector<int64_t>{2});

  stop = false;
  SmallRun second(6);
  evaluate(second);
  second.go_on_from(first);
  EXPECT_EQ(run(*second.job), Outcome::kFinished);
  EXPECT_FALSE(second.state.evaluation_due);
  EXPECT_EQ(evaluated, (std::vector<int64_t>{2, 4, 6}));
  SmallRun unbroken(6);
  run(*unbroken.job);
  EXPECT_TRUE(at::equal(second.adapters->values(), unbroken.adapters->values()));
}

TEST(TrainLoop, LossesThatAreReadLateChangeNoBit) {
  SmallRun plain(5), late(5);
  late.job->objective = std::make_unique<LateLosses>();
  run(*plain.job);
  run(*late.job);
  EXPECT_EQ(late.losses, plain.losses);
  EXPECT_TRUE(at::equal(late.adapters->values(), plain.adapters->values()));
}

TEST(TrainLoop, ALateLossThatIsNotFiniteStopsBeforeTheOptimizerSeesIt) {
  SmallRun small(10);
  small.job->objective = std::make_unique<LateLosses>(3);  // the second of the second step
  try {
    run(*small.job);
    FAIL() << "trained on";
  } catch (const DivergenceError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("step 2: the loss is "), std::string::npos) << message;
    EXPECT_NE(message.find("(micro-batch 1,"), std::string::npos) << message;
  }
  EXPECT_EQ(small.state.step, 1);
  EXPECT_EQ(small.optimizer->num_steps(), 1);
}

TEST(TrainLoop, AStepThatCannotBeReportedIsSavedAllTheSame) {
  for (const bool saves : {true, false}) {
    SmallRun small(10);
    small.job->eval_every = 3;
    small.job->report = [](const StepMetrics& metrics) {
      if (metrics.step == 3) fail<IoError>("metrics.jsonl cannot be written");
    };
    if (!saves) small.job->save = [] { fail<IoError>("no room for a checkpoint"); };
    EXPECT_THAT([&] { run(*small.job); },
                testing::ThrowsMessage<IoError>(testing::HasSubstr("metrics.jsonl cannot be")));
    EXPECT_EQ(small.state.step, 3);
    EXPECT_EQ(small.saves, saves ? 1 : 0);
    EXPECT_TRUE(small.state.evaluation_due) << "the resumed run does it";
  }
}

TEST(TrainLoop, AnEvaluationIsLeftBeforeItsFirstRow) {
  SmallRun small(1);
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  EXPECT_THROW(evaluate_loss(*small.model, small.loader->examples()), Stopped);
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
