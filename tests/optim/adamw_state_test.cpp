#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <tuple>

#include "base/error.h"
#include "optim/optimizer.h"
#include "tests/support/trained_tensors.h"

namespace qlora::optim {
namespace {

using test::same_bits;
using test::TrainedTensors;

const std::vector<int64_t> kSizes = {5000, 100, 4096, 700000, 4095, 8192};

OptimizerOptions named(const std::string& name, int64_t resident_bytes = 0) {
  OptimizerOptions options;
  options.name = name;
  options.weight_decay = 0.1;
  options.paged_resident_bytes = resident_bytes;
  return options;
}

void train(Optimizer& optimizer, TrainedTensors& tensors, uint32_t first, uint32_t last) {
  for (uint32_t step = first; step <= last; ++step) {
    tensors.draw_gradients(step);
    optimizer.step(1e-2 / step, 0.9);
  }
}

// Name and resident bytes: 0 everything, else an arena too small for the state.
class SavedOptimizer : public testing::TestWithParam<std::tuple<std::string, int64_t>> {};
INSTANTIATE_TEST_SUITE_P(
    Names, SavedOptimizer,
    testing::Values(std::tuple("adamw", 0), std::tuple("adamw_8bit", 0),
                    std::tuple("paged_adamw", 0), std::tuple("paged_adamw_8bit", 0),
                    std::tuple("paged_adamw", 2 * 262144 * 8),
                    std::tuple("paged_adamw_8bit", 2 * (262144 * 2 + 1024 * 8)),
                    std::tuple("lion_8bit", 0), std::tuple("ademamix", 0),
                    std::tuple("paged_ademamix_8bit", 2 * (262144 * 3 + 1024 * 12)),
                    std::tuple("sgd_8bit", 0), std::tuple("paged_rmsprop", 2 * 262144 * 4),
                    std::tuple("adagrad_8bit", 0), std::tuple("lamb", 0)),
    [](const auto& info) {
      return std::get<0>(info.param) + (std::get<1>(info.param) > 0 ? "_forced" : "_resident");
    });

TEST_P(SavedOptimizer, AResumedRunHasTheBitsOfAnUnbrokenOne) {
  const OptimizerOptions options = named(std::get<0>(GetParam()), std::get<1>(GetParam()));
  TrainedTensors unbroken(kSizes), resumed(kSizes);
  const auto whole = make_optimizer(options, unbroken.parameters);
  train(*whole, unbroken, 1, 6);

  NamedTensors saved;
  {
    const auto killed = make_optimizer(options, resumed.parameters);
    train(*killed, resumed, 1, 3);
    saved = killed->state();
    train(*killed, resumed, 4, 4);  // lost with the kill
  }
  TrainedTensors at_three(kSizes);
  const auto again = make_optimizer(options, at_three.parameters);
  train(*again, at_three, 1, 3);
  resumed.values.copy_(at_three.values);
  const auto second = make_optimizer(options, resumed.parameters);
  second->load_state(saved, 3);
  EXPECT_EQ(second->num_steps(), 3);
  EXPECT_TRUE(same_bits(second->state(), saved));
  train(*second, resumed, 4, 6);
  EXPECT_TRUE(same_bits(resumed.values, unbroken.values));
  EXPECT_TRUE(same_bits(second->state(), whole->state()));
  EXPECT_EQ(second->paging().evictions > 0, std::get<1>(GetParam()) > 0);
}

TEST_P(SavedOptimizer, StateIsACopy) {
  TrainedTensors tensors(kSizes);
  const auto optimizer =
      make_optimizer(named(std::get<0>(GetParam()), std::get<1>(GetParam())), tensors.parameters);
  train(*optimizer, tensors, 1, 1);
  const NamedTensors state = optimizer->state();
  const at::Tensor before = state[0].second.clone();
  train(*optimizer, tensors, 2, 2);
  EXPECT_TRUE(same_bits(state[0].second, before));
}

TEST(AdamwState, PagedAndUnpagedReadEachOthersState) {
  TrainedTensors tensors(kSizes), others(kSizes);
  const auto unpaged = make_optimizer(named("adamw_8bit"), tensors.parameters);
  train(*unpaged, tensors, 1, 3);
  others.values.copy_(tensors.values);
  const auto paged =
      make_optimizer(named("paged_adamw_8bit", 2 * (262144 * 2 + 1024 * 8)), others.parameters);
  paged->load_state(unpaged->state(), 3);
  train(*unpaged, tensors, 4, 5);
  train(*paged, others, 4, 5);
  EXPECT_TRUE(same_bits(tensors.values, others.values));
  EXPECT_TRUE(same_bits(paged->state(), unpaged->state()));
}

TEST(AdamwState, ShapesAreThoseOfTheParameters) {
  const at::Tensor value = at::zeros({100, 50}), gradient = at::zeros({100, 50});
  const NamedTensors state =
      make_optimizer(named("adamw_8bit"), {{.name = "a", .value = value, .gradient = gradient}})
          ->state();
  ASSERT_EQ(state.size(), 4u);
  EXPECT_EQ(state[0].second.sizes(), at::IntArrayRef({100, 50}));
  EXPECT_EQ(state[2].second.sizes(), at::IntArrayRef({20}));
}

// What load_state says to a state that `change` spoiled. The optimizer must be as before.
std::string refusal(const std::function<void(NamedTensors&)>& change, int64_t num_steps = 3) {
  TrainedTensors tensors({5000, 100});
  const auto optimizer = make_optimizer(named("adamw_8bit"), tensors.parameters);
  train(*optimizer, tensors, 1, 2);
  const NamedTensors before = optimizer->state();
  NamedTensors spoiled = optimizer->state();
  change(spoiled);
  try {
    optimizer->load_state(spoiled, num_steps);
  } catch (const FormatError& error) {
    EXPECT_TRUE(same_bits(optimizer->state(), before));
    EXPECT_EQ(optimizer->num_steps(), 2);
    return error.what();
  }
  return "";
}

TEST(AdamwState, ADamagedStateIsRefusedByName) {
  using testing::HasSubstr;
  const auto nothing = [](NamedTensors&) {};
  // Order: tensor0 .state1 .state2 .absmax1 .absmax2, tensor1 .state1 .state2
  EXPECT_EQ(refusal(nothing), "");
  EXPECT_THAT(refusal(nothing, -1), HasSubstr("number of steps"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s.erase(s.begin() + 2); }),
              HasSubstr("'tensor0.absmax1' is missing"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s.push_back(s[0]); }),
              HasSubstr("'tensor0.state1' is there twice"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s.emplace_back("tensor9.state1", s[0].second); }),
              HasSubstr("'tensor9.state1' belongs to no trained parameter"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s[0].second = s[0].second.narrow(0, 0, 4999); }),
              HasSubstr("'tensor0.state1' must be Byte [5000], got Byte [4999]"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s[1].second = s[1].second.to(at::kFloat); }),
              HasSubstr("'tensor0.state2' must be Byte [5000], got Float [5000]"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s[3].second = at::Tensor(); }),
              HasSubstr("'tensor0.absmax2'"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s[2].second[3] = -1.0f; }),
              HasSubstr("'tensor0.absmax1'"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s[3].second[3] = std::nanf(""); }),
              HasSubstr("'tensor0.absmax2'"));
  EXPECT_THAT(
      refusal([](NamedTensors& s) { s[4].second[3] = std::numeric_limits<float>::infinity(); }),
      HasSubstr("'tensor1.state1' must hold finite numbers;"));
  EXPECT_THAT(refusal([](NamedTensors& s) { s[5].second[3] = -1e-3f; }),
              HasSubstr("'tensor1.state2'"));
  EXPECT_EQ(refusal([](NamedTensors& s) { s[4].second[3] = -1e-3f; }), "");
}

TEST(AdamwState, StateOfAnotherPrecisionIsRefused) {
  TrainedTensors tensors({5000}), others({5000});
  const auto wide = make_optimizer(named("adamw"), tensors.parameters);
  const auto narrow = make_optimizer(named("adamw_8bit"), others.parameters);
  EXPECT_THROW(narrow->load_state(wide->state(), 1), FormatError);
  EXPECT_THROW(wide->load_state(narrow->state(), 1), FormatError);
}

}  // namespace
}  // namespace qlora::optim
