// Queries that grow with the position (Ministral 3): 1 + beta ln(1 + floor(position / step)).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/small_models.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using test::small_ministral3;

at::Tensor hidden(const test::SmallModel& model, const ForwardInput& input) {
  at::NoGradGuard no_grad;
  return model.load()->hidden(input);
}

// All positions of one step have one factor, which the matrix of queries may have as well.
TEST(QueryScaling, IsThatOfTheStepInWhichThePositionLies) {
  ForwardInput input = test::tiny_input({8, 5});
  for (int32_t& position : input.positions) position += 2 * 16;
  test::SmallModel by_hand = small_ministral3(0);
  const at::Tensor unscaled = hidden(by_hand, input);
  for (auto& [name, tensor] : by_hand.tensors)
    if (name.ends_with("q_proj.weight")) tensor.mul_(1 + 0.3 * std::log(3.0));
  const at::Tensor found = hidden(small_ministral3(0.3), input);
  EXPECT_TRUE(at::allclose(found, hidden(by_hand, input), 1e-5, 1e-5));
  EXPECT_FALSE(at::allclose(found, unscaled, 1e-3, 1e-3));
}

TEST(QueryScaling, LeavesTheFirstStepOfEachDocumentAsItIs) {
  const ForwardInput input = test::tiny_input({24, 16});
  const at::Tensor found = hidden(small_ministral3(0.3), input);
  const at::Tensor plain = hidden(small_ministral3(0), input);
  EXPECT_TRUE(at::allclose(found.narrow(0, 0, 16), plain.narrow(0, 0, 16), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(found.narrow(0, 24, 16), plain.narrow(0, 24, 16), 1e-5, 1e-5));
  for (int64_t row = 16; row < 24; ++row)
    EXPECT_FALSE(at::allclose(found[row], plain[row], 1e-4, 1e-4)) << row;
}

TEST(QueryScaling, IsReadFromRopesParametersOrIsTheFamilys) {
  const Architecture small = test::described(small_ministral3(0.3).config);
  EXPECT_EQ(small.query_scaling.beta, 0.3);
  EXPECT_EQ(small.query_scaling.step, 16);
  EXPECT_TRUE(small.block(0).attention().scales_queries);
  EXPECT_FALSE(test::described(small_ministral3(0).config).block(0).attention().scales_queries);
  nlohmann::json config = small_ministral3(0).config;
  config.erase("rope_parameters");
  const Architecture usual = test::described(config);
  EXPECT_EQ(usual.query_scaling.beta, 0.1);
  EXPECT_EQ(usual.query_scaling.step, 16384);
  EXPECT_EQ(usual.rotaries.at(0).rope.type, "yarn");
  EXPECT_EQ(usual.rotaries.at(0).rope.theta, 1e6);
}

}  // namespace
}  // namespace qlora::model
