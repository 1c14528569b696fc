#include "optim/round.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/device.h"
#include "base/parallel_for.h"

namespace qlora::optim {
namespace {

std::vector<Parameter> one(const at::Tensor& values, const std::string& name = "w") {
  return {{.name = name, .value = values, .gradient = at::zeros_like(values)}};
}

at::Tensor rounded(const at::Tensor& values, bool stochastic, int64_t step,
                   const std::string& name = "w", uint64_t seed = 7) {
  at::Tensor result = values.clone();
  round_masters({true, stochastic, seed}, one(result, name), step);
  return result;
}

TEST(RoundMasters, Float32MastersStayAsTheyAre) {
  const at::Tensor values = at::randn({1000});
  at::Tensor result = values.clone();
  round_masters({}, one(result), 3);
  EXPECT_TRUE(at::equal(result, values));
}

TEST(RoundMasters, ToNearestIsTorchsBfloat16) {
  const at::Tensor values = at::randn({10007});
  EXPECT_TRUE(at::equal(rounded(values, false, 0), values.to(at::kBFloat16).to(at::kFloat)));
}

TEST(RoundMasters, StochasticTakesOneOfTheTwoNeighbours) {
  const at::Tensor values = at::randn({10007});
  const at::Tensor result = rounded(values, true, 0);
  EXPECT_TRUE(at::equal(result, result.to(at::kBFloat16).to(at::kFloat)));
  // A neighbour is less than one unit of the last place away: 2^-7 of the value.
  EXPECT_TRUE(((result - values).abs() <= values.abs() * 0x1p-7).all().item<bool>());
  EXPECT_FALSE(at::equal(result, rounded(values, false, 0)));
}

TEST(RoundMasters, AValueThatBfloat16HoldsNeverMoves) {
  const at::Tensor values = at::randn({4096}).to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(at::equal(rounded(values, true, 5), values));
}

TEST(RoundMasters, TheMeanOfManyStochasticRoundingsIsTheValue) {
  // Between 1 and 1 + 2^-7, a quarter of the way up.
  const double unit = 0x1p-7, value = 1.0 + unit / 4;
  const int64_t count = 200000;
  const at::Tensor result = rounded(at::full({count}, value, at::kFloat), true, 1);
  const double mean = result.to(at::kDouble).mean().item<double>();
  // Five standard deviations of the mean of a two-valued variable with p = 1/4.
  EXPECT_NEAR(mean, value, 5 * unit * std::sqrt(0.25 * 0.75 / static_cast<double>(count)));
}

TEST(RoundMasters, NearestLosesASmallUpdateThatStochasticKeeps) {
  const double update = 0x1p-12;  // of 1: 32 times below the spacing of bfloat16
  const int64_t steps = 320;
  at::Tensor nearest = at::ones({2000}), stochastic = at::ones({2000});
  for (int64_t step = 0; step < steps; ++step) {
    nearest.add_(update);
    stochastic.add_(update);
    round_masters({true, false, 7}, one(nearest), step);
    round_masters({true, true, 7}, one(stochastic), step);
  }
  EXPECT_EQ(nearest.max().item<float>(), 1.0f);
  const double expected = 1.0 + static_cast<double>(steps) * update;
  // A step's variance is at most unit · update; the mean of 2,000 walks, five deviations.
  const double deviation = std::sqrt(static_cast<double>(steps) * 0x1p-7 * update / 2000);
  EXPECT_NEAR(stochastic.to(at::kDouble).mean().item<double>(), expected, 5 * deviation);
}

TEST(RoundMasters, TheBitsAreAFunctionOfSeedNameAndStep) {
  const at::Tensor values = at::randn({5000});
  const at::Tensor first = rounded(values, true, 4);
  const int threads = num_threads();
  set_num_threads(1);
  EXPECT_TRUE(at::equal(first, rounded(values, true, 4)));
  set_num_threads(threads);
  EXPECT_FALSE(at::equal(first, rounded(values, true, 5)));
  EXPECT_FALSE(at::equal(first, rounded(values, true, 4, "v")));
  EXPECT_FALSE(at::equal(first, rounded(values, true, 4, "w", 8)));
}

TEST(RoundMasters, InfinityAndNanStayWhatTheyAre) {
  const float inf = std::numeric_limits<float>::infinity();
  at::Tensor values = at::empty({3});
  values[0] = inf;
  values[1] = -inf;
  values[2] = std::numeric_limits<float>::quiet_NaN();
  for (const bool stochastic : {false, true}) {
    const at::Tensor result = rounded(values, stochastic, 0);
    EXPECT_EQ(result[0].item<float>(), inf);
    EXPECT_EQ(result[1].item<float>(), -inf);
    EXPECT_TRUE(std::isnan(result[2].item<float>()));
  }
}

}  // namespace
}  // namespace qlora::optim
