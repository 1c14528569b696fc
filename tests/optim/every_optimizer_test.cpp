// What holds for every optimizer, by its name.
#include <gtest/gtest.h>

#include <cmath>

#include "base/device.h"
#include "base/parallel_for.h"
#include "optim/optimizer.h"
#include "optim/optimizer_names.h"
#include "tests/support/trained_tensors.h"

namespace qlora::optim {
namespace {

using test::same_bits;
using test::TrainedTensors;

OptimizerOptions named(const std::string& name, double weight_decay = 0) {
  OptimizerOptions options;
  options.name = name;
  options.lr = 1e-2;
  options.weight_decay = weight_decay;
  return options;
}

class EveryOptimizer : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Names, EveryOptimizer,
                         testing::Values("adamw", "adamw_8bit", "lion", "lion_8bit", "ademamix",
                                         "paged_ademamix_8bit", "sgd", "sgd_8bit", "rmsprop",
                                         "rmsprop_8bit", "adagrad", "adagrad_8bit", "lamb"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(EveryOptimizer, WithoutGradientAndDecayNothingMoves) {
  TrainedTensors tensors({5000, 100});
  const at::Tensor before = tensors.values.clone();
  const auto optimizer = make_optimizer(named(GetParam()), tensors.parameters);
  for (int i = 0; i < 3; ++i) optimizer->step(1e-2, 1.0);
  EXPECT_TRUE(same_bits(tensors.values, before));
}

TEST_P(EveryOptimizer, TheFirstStepGoesAgainstTheGradient) {
  TrainedTensors tensors({5000, 100});
  tensors.draw_gradients(1);
  const at::Tensor before = tensors.values.clone();
  make_optimizer(named(GetParam()), tensors.parameters)->step(1e-2, 1.0);
  EXPECT_EQ(((tensors.values - before) * tensors.gradients).gt(0).sum().item<int64_t>(), 0);
  EXPECT_FALSE(same_bits(tensors.values, before));
}

TEST_P(EveryOptimizer, TheGradientScaleIsThatOfScaledGradients) {
  TrainedTensors scaled({5000, 100}), plain({5000, 100});
  const auto with_scale = make_optimizer(named(GetParam(), 0.1), scaled.parameters);
  const auto without = make_optimizer(named(GetParam(), 0.1), plain.parameters);
  for (uint32_t step = 1; step <= 3; ++step) {
    scaled.draw_gradients(step);
    plain.draw_gradients(step);
    plain.gradients *= 0.3f;
    with_scale->step(1e-2, 0.3);
    without->step(1e-2, 1.0);
  }
  EXPECT_TRUE(same_bits(scaled.values, plain.values));
  EXPECT_TRUE(same_bits(with_scale->state(), without->state()));
}

TEST_P(EveryOptimizer, HasTheSameBitsForEveryNumberOfThreads) {
  const int before = num_threads();
  at::Tensor values;
  NamedTensors state;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    TrainedTensors tensors({4096, 5001, 100, 300000, 4095});
    const auto optimizer = make_optimizer(named(GetParam(), 0.1), tensors.parameters);
    for (uint32_t step = 1; step <= 3; ++step) {
      tensors.draw_gradients(step);
      optimizer->step(1e-2, 0.7);
    }
    if (threads == 1) {
      values = tensors.values;
      state = optimizer->state();
    }
    EXPECT_TRUE(same_bits(tensors.values, values)) << threads;
    EXPECT_TRUE(same_bits(optimizer->state(), state)) << threads;
  }
  set_num_threads(before);
}

// f(x) = |x|^2 / 2 from x in (-1, 1), the rate falling linearly to zero.
double loss_after_descent(const std::string& name, double lr, int steps) {
  TrainedTensors tensors({8192});
  const auto optimizer = make_optimizer(named(name), tensors.parameters);
  for (int step = 0; step < steps; ++step) {
    tensors.gradients.copy_(tensors.values);
    optimizer->step(lr * (steps - step) / steps, 1.0);
  }
  return tensors.values.square().mean().item<double>() / 2;
}

TEST_P(EveryOptimizer, FindsTheMinimumOfAQuadratic) {
  const std::string name = GetParam();
  const Rule rule = optimizer_kind(name).rule;
  const double lr = rule == Rule::kAdagrad                           ? 0.3
                    : rule == Rule::kMomentum || rule == Rule::kLamb ? 0.1
                                                                     : 0.02;
  const double before = TrainedTensors({8192}).values.square().mean().item<double>() / 2;
  EXPECT_LE(loss_after_descent(name, lr, 600), 1e-3 * before);
}

TEST(EightBitState, EndsWhere32BitStateEnds) {
  // The codes are within 2 % of a moment, so a step is within a few percent of the exact one; at a
  // vanishing rate both must come to rest at the same minimum.
  for (const std::string family : {"adamw", "lion"}) {
    const double exact = loss_after_descent(family, 0.02, 600);
    const double coded = loss_after_descent(family + "_8bit", 0.02, 600);
    EXPECT_LE(coded, 2 * exact + 1e-8) << family << " " << exact;
  }
}

TEST(Lamb, AnUpdateIsNeverLargerThanItsTensor) {
  // 100 elements of 1e-4: Adam's first update has norm 10, the tensor 1e-3.
  at::Tensor value = at::full({100}, 1e-4f), gradient = at::ones({100});
  const auto optimizer =
      make_optimizer(named("lamb"), {{.name = "w", .value = value, .gradient = gradient}});
  optimizer->step(0.5, 1.0);
  // u = m / sqrt v is measured before the corrections: p -= lr c2/c1 |p| / |u| u, c2/c1 = 0.316.
  EXPECT_NEAR(value[7].item<double>(), 1e-4 * (1 - 0.5 * std::sqrt(0.001) / 0.1), 1e-10);
}

TEST(Ademamix, TheRampStartsAtAlphaZeroAndBeta1) {
  OptimizerOptions options = named("ademamix");
  options.alpha_ramp = 1000000;  // as good as adam with one average more
  TrainedTensors slow({100}), plain({100});
  const auto ramped = make_optimizer(options, slow.parameters);
  const auto adam = make_optimizer(named("adamw"), plain.parameters);
  for (uint32_t step = 1; step <= 5; ++step) {
    slow.draw_gradients(step);
    plain.draw_gradients(step);
    ramped->step(1e-2, 1.0);
    adam->step(1e-2, 1.0);
  }
  EXPECT_LE((slow.values - plain.values).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace qlora::optim
