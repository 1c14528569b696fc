#include "optim/fused_optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "tests/support/adamw_reference.h"
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

class EveryAdamw : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Adamw, EveryAdamw,
                         testing::Values("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(EveryAdamw, TheFirstStepMovesEachElementAgainstItsGradientByTheLearningRate) {
  // m / (1 - beta1) = g and v / (1 - beta2) = g^2, so the step is lr g / (|g| + eps).
  TrainedTensors tensors({5000, 100});
  tensors.draw_gradients(1);
  const at::Tensor before = tensors.values.clone();
  make_optimizer(named(GetParam()), tensors.parameters)->step(1e-2, 1.0);
  const at::Tensor g = tensors.gradients.to(at::kDouble);
  const at::Tensor expected = before.to(at::kDouble) - 1e-2 * g / (g.abs() + 1e-8);
  // The result rounds to fp32 at magnitude 1 (2^-24), the step to a few parts in 2^24.
  EXPECT_LE((tensors.values - expected).abs().max().item<double>(), 6e-8 + 1e-2 * 8 * 6e-8);
}

TEST_P(EveryAdamw, WithoutGradientAndDecayNothingMoves) {
  TrainedTensors tensors({5000, 100});
  const at::Tensor before = tensors.values.clone();
  const auto optimizer = make_optimizer(named(GetParam()), tensors.parameters);
  for (int i = 0; i < 3; ++i) optimizer->step(1e-2, 1.0);
  EXPECT_TRUE(same_bits(tensors.values, before));
}

TEST_P(EveryAdamw, DecayAloneShrinksByOneMinusRateTimesDecay) {
  TrainedTensors tensors({5000, 100});
  at::Tensor expected = tensors.values.clone();
  const auto optimizer = make_optimizer(named(GetParam(), 0.1), tensors.parameters);
  for (int i = 0; i < 3; ++i) {
    optimizer->step(1e-2, 1.0);
    expected *= static_cast<float>(1.0 - 1e-2 * 0.1);
  }
  EXPECT_TRUE(same_bits(tensors.values, expected));
}

TEST_P(EveryAdamw, ARateOfZeroMovesTheStateOnly) {
  TrainedTensors tensors({5000, 100});
  const at::Tensor before = tensors.values.clone();
  const auto optimizer = make_optimizer(named(GetParam(), 0.1), tensors.parameters);
  const NamedTensors state = optimizer->state();
  tensors.draw_gradients(1);
  optimizer->step(0.0, 1.0);
  EXPECT_TRUE(same_bits(tensors.values, before));
  EXPECT_FALSE(same_bits(optimizer->state(), state));
  EXPECT_EQ(optimizer->num_steps(), 1);
}

TEST_P(EveryAdamw, TheGradientScaleIsThatOfScaledGradients) {
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

TEST_P(EveryAdamw, RateScaleAndDecayOfAParameterAreItsOwn) {
  TrainedTensors together({5000, 6000});
  together.parameters[1].lr_scale = 16;
  together.parameters[1].weight_decay = 0.05;
  TrainedTensors first({5000, 6000}), second({5000, 6000});
  const auto all = make_optimizer(named(GetParam(), 0.1), together.parameters);
  const auto plain = make_optimizer(named(GetParam(), 0.1), first.parameters);
  const auto other = make_optimizer(named(GetParam(), 0.05), second.parameters);
  for (uint32_t step = 1; step <= 3; ++step) {
    for (TrainedTensors* tensors : {&together, &first, &second}) tensors->draw_gradients(step);
    all->step(1e-3, 1.0);
    plain->step(1e-3, 1.0);
    other->step(16e-3, 1.0);
  }
  EXPECT_TRUE(same_bits(together.parameters[0].value, first.parameters[0].value));
  EXPECT_TRUE(same_bits(together.parameters[1].value, second.parameters[1].value));
}

TEST_P(EveryAdamw, HasTheSameBitsForEveryNumberOfThreads) {
  const std::vector<int64_t> sizes = {4096, 5001, 100, 300000, 9216, 4095};
  const int before = num_threads();
  at::Tensor values;
  NamedTensors state;
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    TrainedTensors tensors(sizes);
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

// Every tensor against the plain loops, bit for bit. `damage` may spoil the gradients of a step.
void expect_reference(
    const std::string& name, const std::vector<int64_t>& sizes,
    const std::function<void(uint32_t, at::Tensor&)>& damage = [](uint32_t, at::Tensor&) {}) {
  const OptimizerOptions options = named(name, 0.1);
  TrainedTensors tensors(sizes);
  std::vector<test::AdamwReference> references;
  for (const Parameter& parameter : tensors.parameters) {
    const float* begin = parameter.value.const_data_ptr<float>();
    references.emplace_back(options, std::vector<float>(begin, begin + parameter.value.numel()),
                            name.ends_with("8bit") && parameter.value.numel() >= 4096);
  }
  const auto optimizer = make_optimizer(options, tensors.parameters);
  for (uint32_t step = 1; step <= 5; ++step) {
    tensors.draw_gradients(step);
    damage(step, tensors.gradients);
    optimizer->step(1e-2 / step, 0.9);
    for (size_t i = 0; i < references.size(); ++i) {
      const float* begin = tensors.parameters[i].gradient.const_data_ptr<float>();
      references[i].step(1e-2 / step, 0.9, {begin, begin + tensors.parameters[i].gradient.numel()});
    }
  }
  const NamedTensors state = optimizer->state();
  size_t next = 0;
  const auto expect_bits = [&](const std::string& tensor_name, const void* expected) {
    ASSERT_LT(next, state.size());
    EXPECT_EQ(state[next].first, tensor_name);
    EXPECT_EQ(
        std::memcmp(state[next].second.const_data_ptr(), expected, state[next].second.nbytes()), 0)
        << tensor_name;
    ++next;
  };
  for (size_t i = 0; i < references.size(); ++i) {
    const test::AdamwReference& reference = references[i];
    const Parameter& parameter = tensors.parameters[i];
    EXPECT_TRUE(same_bits(parameter.value, TrainedTensors::to_tensor(reference.value)))
        << parameter.name;
    expect_bits(parameter.name + ".state1", reference.eight_bit
                                                ? static_cast<const void*>(reference.codes1.data())
                                                : reference.m.data());
    expect_bits(parameter.name + ".state2", reference.eight_bit
                                                ? static_cast<const void*>(reference.codes2.data())
                                                : reference.v.data());
    if (!reference.eight_bit) continue;
    expect_bits(parameter.name + ".absmax1", reference.absmax1.data());
    expect_bits(parameter.name + ".absmax2", reference.absmax2.data());
  }
  EXPECT_EQ(next, state.size());
}

TEST_P(EveryAdamw, EqualsThePlainLoopsForAllSizes) {
  expect_reference(GetParam(), {1, 2, 255, 256, 257, 4095, 4096, 4097, 5000, 4352});
}

TEST_P(EveryAdamw, EqualsThePlainLoopsForATensorOfSeveralPages) {
  expect_reference(GetParam(), {9000, 2 * kPageElements + 77, 5000});
}

TEST(Adamw8bit, AnElementWhoseGradientIsNotFiniteKeepsItsValueAndLosesItsState) {
  const auto damage = [](uint32_t step, at::Tensor& gradients) {
    if (step != 3) return;
    gradients[0] = std::numeric_limits<float>::infinity();
    gradients[300] = -std::numeric_limits<float>::infinity();
    gradients[4999] = std::nanf("");
    gradients[4500] = 1e30f;  // finite, but its square is not
    gradients.narrow(0, 2560, 256).fill_(std::nanf(""));
  };
  expect_reference("adamw_8bit", {5000}, damage);

  TrainedTensors tensors({5000});
  const auto optimizer = make_optimizer(named("adamw_8bit", 0.1), tensors.parameters);
  tensors.draw_gradients(1);
  tensors.gradients[300] = std::nanf("");
  const at::Tensor before = tensors.values.clone();
  optimizer->step(1e-2, 1.0);
  EXPECT_EQ(tensors.values[300].item<float>(), before[300].item<float>());
  EXPECT_NE(tensors.values[301].item<float>(), before[301].item<float>());
  EXPECT_TRUE(tensors.values.isfinite().all().item<bool>());
}

TEST(Adamw8bit, MomentsThatFadeIntoDenormalsStayHarmless) {
  TrainedTensors tensors({4096});
  const auto optimizer = make_optimizer(named("adamw_8bit"), tensors.parameters);
  tensors.draw_gradients(1);
  optimizer->step(1e-2, 1.0);
  tensors.gradients.zero_();
  for (int i = 0; i < 1200; ++i)
    optimizer->step(1e-2, 1.0);  // 0.9^1200 is below the least denormal
  EXPECT_TRUE(tensors.values.isfinite().all().item<bool>());
  const at::Tensor before = tensors.values.clone();
  optimizer->step(1e-2, 1.0);
  EXPECT_LE((tensors.values - before).abs().max().item<float>(), 1e-7f);
}

TEST(Adamw8bit, TensorsBelow4096ElementsKeepFp32State) {
  TrainedTensors tensors({4095, 4096});
  const NamedTensors state = make_optimizer(named("adamw_8bit"), tensors.parameters)->state();
  ASSERT_EQ(state.size(), 6u);
  EXPECT_EQ(state[0].second.scalar_type(), at::kFloat);
  EXPECT_EQ(state[2].first, "tensor1.state1");
  EXPECT_EQ(state[2].second.scalar_type(), at::kByte);
  EXPECT_EQ(state[4].first, "tensor1.absmax1");
  EXPECT_EQ(state[4].second.numel(), 16);
}

TEST(Adamw8bit, TakesAQuarterOfTheStateOf32Bit) {
  const std::vector<int64_t> sizes(20, 1 << 16);
  const StateBytes wide = optimizer_state_bytes(named("adamw"), sizes, false);
  const StateBytes narrow = optimizer_state_bytes(named("adamw_8bit"), sizes, false);
  EXPECT_EQ(wide.device, 20 * 65536 * 8);
  EXPECT_EQ(narrow.device, 20 * (65536 * 2 + 256 * 8));
}

TEST(Adamw, RefusesParametersItCannotTrain) {
  const OptimizerOptions options = named("adamw");
  EXPECT_THROW(make_optimizer(options, {}), Error);
  const auto with = [&](const std::function<void(Parameter&)>& change) {
    TrainedTensors tensors({100, 100});
    change(tensors.parameters[1]);
    make_optimizer(options, tensors.parameters);
  };
  EXPECT_NO_THROW(with([](Parameter&) {}));
  EXPECT_THROW(with([](Parameter& p) { p.value = p.value.to(at::kBFloat16); }), Error);
  EXPECT_THROW(with([](Parameter& p) { p.gradient = at::Tensor(); }), Error);
  EXPECT_THROW(with([](Parameter& p) { p.gradient = at::zeros({99}); }), Error);
  EXPECT_THROW(
      with([](Parameter& p) { p.value = p.gradient = at::zeros({200}).slice(0, 0, 200, 2); }),
      Error);
  EXPECT_THROW(with([](Parameter& p) { p.value = p.gradient = at::zeros({0}); }), Error);
  EXPECT_THROW(with([](Parameter& p) { p.name = "tensor0"; }), Error);
  EXPECT_THROW(with([](Parameter& p) { p.lr_scale = -1; }), Error);
  EXPECT_THROW(with([](Parameter& p) { p.weight_decay = std::nan(""); }), Error);
}

TEST(Adamw, RefusesARateOrScaleThatIsNotANumber) {
  TrainedTensors tensors({100});
  const auto optimizer = make_optimizer(named("adamw"), tensors.parameters);
  EXPECT_THROW(optimizer->step(std::nan(""), 1.0), Error);
  EXPECT_THROW(optimizer->step(-1e-3, 1.0), Error);
  EXPECT_THROW(optimizer->step(1e-3, std::nan("")), Error);
  EXPECT_EQ(optimizer->num_steps(), 0);
}

}  // namespace
}  // namespace qlora::optim
