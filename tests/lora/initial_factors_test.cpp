#include "lora/initial_factors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "lora/lora_options.h"

namespace qlora::lora {
namespace {

constexpr int64_t kRank = 8, kIn = 4000, kOut = 500;

Factors drawn(const char* init, uint64_t key = 1) {
  return initial_factors(init, kRank, kIn, kOut, key, key + 100);
}

double deviation(const at::Tensor& tensor) { return tensor.std().item<double>(); }
double largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

TEST(InitialFactors, TheDefaultIsUniformWithinItsBoundAndBIsZero) {
  const Factors f = drawn("default");
  const double bound = 1 / std::sqrt(double{kIn});
  EXPECT_LE(largest(f.a), bound);
  EXPECT_GT(largest(f.a), 0.99 * bound);
  EXPECT_NEAR(deviation(f.a), bound / std::sqrt(3.0), 0.02 * bound);
  EXPECT_EQ(largest(f.b), 0);
}

TEST(InitialFactors, GaussianHasTheDeviationOneOverTheRankAndBIsZero) {
  const Factors f = drawn("gaussian");
  EXPECT_NEAR(deviation(f.a), 1.0 / kRank, 0.02 / kRank);
  EXPECT_NEAR(f.a.mean().item<double>(), 0, 4.0 / kRank / std::sqrt(double{kRank * kIn}));
  EXPECT_EQ(largest(f.b), 0);
}

// A row of A sums rank / 2 normal columns by a row of an orthogonal matrix: the mean square of all
// of A is half of 1/100.
TEST(InitialFactors, OrthogonalFactorsAreNotZeroButTheirProductIs) {
  const Factors f = drawn("orthogonal");
  EXPECT_NEAR(f.a.square().mean().item<double>(), 0.005, 0.0005);
  EXPECT_NEAR(f.b.square().mean().item<double>(), 0.005, 0.0005);
  EXPECT_LT(largest(f.b.mm(f.a)), 1e-6);  // entries of each summand are near 1e-2
}

TEST(InitialFactors, EveryNumberIsAFunctionOfTheKeys) {
  for (const char* init : {"default", "gaussian", "orthogonal"}) {
    EXPECT_TRUE(at::equal(drawn(init).a, drawn(init).a)) << init;
    EXPECT_TRUE(at::equal(drawn(init).b, drawn(init).b)) << init;
    EXPECT_FALSE(at::equal(drawn(init).a, drawn(init, 2).a)) << init;
    EXPECT_EQ(drawn(init).a.sizes(), (std::vector<int64_t>{kRank, kIn})) << init;
    EXPECT_EQ(drawn(init).b.sizes(), (std::vector<int64_t>{kOut, kRank})) << init;
    EXPECT_TRUE(drawn(init).a.is_contiguous()) << init;
  }
}

TEST(InitialFactors, UnknownNamesAndOddRanksAreRefused) {
  LoraOptions options;
  options.init = "xavier";
  EXPECT_THROW(options.validate(), ConfigError);
  options.init = "orthogonal";
  EXPECT_NO_THROW(options.validate());
  options.rank = 5;
  EXPECT_THROW(options.validate(), ConfigError);
}

}  // namespace
}  // namespace qlora::lora
