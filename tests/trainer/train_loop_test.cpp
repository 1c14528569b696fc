#include "trainer/train_loop.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "base/seed.h"
#include "tests/support/tiny_model.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

std::vector<data::Example> random_examples(int count) {
  std::vector<data::Example> examples;
  for (int row = 0; row < count; ++row) {
    data::Example example;
    example.row = row;
    const auto length = 4 + uniform_integer(11, static_cast<uint64_t>(row), 9);
    for (uint64_t i = 0; i < length; ++i) {
      example.tokens.push_back(static_cast<data::TokenId>(
          uniform_integer(random_key(12, static_cast<uint64_t>(row)), i, 61)));
      example.supervised.push_back(i >= 2);
    }
    examples.push_back(example);
  }
  return examples;
}

// Everything of one small run, so that a test can stop it, copy its state and go on.
struct SmallRun {
  std::unique_ptr<model::CausalLm> model = test::tiny_model(at::kBFloat16);
  std::unique_ptr<lora::AdapterSet> adapters = test::tiny_adapters(*model, false, 0.1);
  optim::OptimizerOptions options;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<data::Loader> loader;
  TrainState state;
  std::vector<double> losses;
  std::unique_ptr<TrainJob> job;
  int saves = 0;

  explicit SmallRun(int64_t total_steps, data::LoaderOptions loading = {24, true, true, 2, 2, 5},
                    const lora::LoraOptions* lora = nullptr) {
    if (lora != nullptr)
      adapters = std::make_unique<lora::AdapterSet>(*lora, model->parts(), at::kBFloat16, 3);
    options.name = "paged_adamw_8bit";
    options.schedule = "linear";
    options.lr = 1e-2;
    std::vector<optim::Parameter> parameters;
    for (const auto& t : adapters->tensors()) parameters.push_back({t.name, t.value, t.gradient});
    optimizer = optim::make_optimizer(options, parameters);
    loader = std::make_unique<data::Loader>(random_examples(23), loading);
    job.reset(new TrainJob{*model, *adapters, *optimizer, parameters,
                           optim::LrSchedule(options, 10), *loader, state});
    job->total_steps = total_steps;
    job->seed = 5;
    job->report = [this](const StepMetrics& m) { losses.push_back(m.loss); };
    job->evaluate = [] {};
    job->save = [this] { ++saves; };
  }
};

TEST(TrainLoop, AResumedRunRepeatsTheUnbrokenOneBitForBit) {
  SmallRun unbroken(10);
  EXPECT_EQ(run(*unbroken.job), Outcome::kFinished);

  SmallRun first(5);  // stops in the middle of an epoch
  run(*first.job);
  SmallRun second(10);
  {
    at::NoGradGuard no_grad;
    at::Tensor masters = second.adapters->values();
    masters.copy_(first.adapters->values());
    second.adapters->publish();
  }
  second.optimizer->load_state(first.optimizer->state(), first.optimizer->num_steps());
  second.state = first.state;
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
    auto small =
        std::make_unique<SmallRun>(steps, data::LoaderOptions{24, true, true, 2, 2, 5}, &lora);
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
