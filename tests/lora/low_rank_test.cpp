#include "lora/low_rank.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/parallel_for.h"

namespace qlora::lora {
namespace {

// Largest difference, relative to the largest value.
double relative_difference(const at::Tensor& found, const at::Tensor& wanted) {
  return ((found.to(at::kDouble) - wanted).abs().max() / wanted.abs().max()).item<double>();
}

// bf16 results are rounded once, by 2^-9 of a value at most; sums of fp32 add far less.
constexpr double kRounded = 1.0 / 256;
constexpr double kSummed = 1e-5;

struct Shape {
  int64_t tokens, features, rank;
};

class LowRank : public testing::TestWithParam<std::tuple<at::ScalarType, Shape>> {
 protected:
  at::Tensor random(int64_t rows, int64_t columns) const {
    return at::randn({rows, columns}).to(std::get<0>(GetParam()));
  }
  Shape shape() const { return std::get<1>(GetParam()); }
};

TEST_P(LowRank, DownIsTheProductWithTheTransposedFactorEitherWayItIsStored) {
  const auto [tokens, features, rank] = shape();
  const at::Tensor x = random(tokens, features), a = random(rank, features);
  const at::Tensor wanted = at::mm(x.to(at::kDouble), a.to(at::kDouble).t()) * 0.5;
  at::Tensor wide = at::zeros({tokens, rank + 6}, x.options());
  low_rank_down(x, a, 0.5, wide.narrow(1, 2, rank));
  EXPECT_LT(relative_difference(wide.narrow(1, 2, rank), wanted), kRounded);
  EXPECT_EQ(wide.narrow(1, 0, 2).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(wide.narrow(1, rank + 2, 4).abs().max().item<float>(), 0.0f);

  at::Tensor h = at::empty({tokens, rank}, x.options());
  low_rank_down(x, a.t().contiguous().t(), 0.5, h);
  EXPECT_LT(relative_difference(h, wanted), kRounded);
}

TEST_P(LowRank, UpAddsToWhatIsThere) {
  const auto [tokens, features, rank] = shape();
  const at::Tensor h = random(tokens, rank + 4).narrow(1, 4, rank), b = random(features, rank),
                   y = random(tokens, features);
  const at::Tensor wanted =
      y.to(at::kDouble) + at::mm(h.to(at::kDouble), b.to(at::kDouble).t()) * 1.5;
  at::Tensor found = y.clone();
  low_rank_up(h, b, 1.5, true, found);
  EXPECT_LT(relative_difference(found, wanted), kRounded);
  found = y.clone();
  low_rank_up(h, b.t().contiguous().t(), 1.5, true, found);
  EXPECT_LT(relative_difference(found, wanted), kRounded);
}

TEST_P(LowRank, UpReplacesWhatIsThereIfItIsToldTo) {
  const auto [tokens, features, rank] = shape();
  const at::Tensor h = random(tokens, rank), b = random(features, rank);
  const at::Tensor wanted = at::mm(h.to(at::kDouble), b.to(at::kDouble).t()) * 1.5;
  at::Tensor found = at::full({tokens, features}, NAN, h.options());
  low_rank_up(h, b, 1.5, false, found);
  EXPECT_LT(relative_difference(found, wanted), kRounded);
}

TEST_P(LowRank, GradientsAddUpInFp32InEitherLayout) {
  const auto [tokens, features, rank] = shape();
  const at::Tensor h = random(tokens, rank), x = random(tokens, features);
  const at::Tensor before = at::randn({rank, features});
  const at::Tensor wanted =
      before.to(at::kDouble) + at::mm(h.to(at::kDouble).t(), x.to(at::kDouble)) * 0.25;
  // ATen rounds a bf16 product once more.
  const bool own = x.scalar_type() == at::kBFloat16 && rank % 2 == 0 && features % 2 == 0;
  const double tolerance = own || x.scalar_type() == at::kFloat ? kSummed : kRounded;
  at::Tensor found = before.clone();
  low_rank_gradient(h, x, 0.25, found);
  EXPECT_LT(relative_difference(found, wanted), tolerance);
  at::Tensor transposed = before.t().contiguous();
  low_rank_gradient(h, x, 0.25, transposed.t());
  EXPECT_LT(relative_difference(transposed.t(), wanted), tolerance);
}

// Of our kernels; ATen's products do not promise it.
TEST(LowRankKernels, TheBitsDoNotDependOnTheThreadCount) {
  const int threads = num_threads();
  for (const Shape& s : {Shape{64, 64, 16}, Shape{131, 578, 48}, Shape{40, 96, 98}}) {
    const at::Tensor x = at::randn({s.tokens, s.features}).to(at::kBFloat16);
    const at::Tensor a = at::randn({s.rank, s.features}).to(at::kBFloat16);
    at::Tensor results[2], gradients[2];
    for (int i = 0; i < 2; ++i) {
      set_num_threads(i == 0 ? 1 : threads);
      results[i] = at::empty({s.tokens, s.rank}, x.options());
      low_rank_down(x, a, 1.0, results[i]);
      gradients[i] = at::zeros({s.rank, s.features});
      low_rank_gradient(results[i], x, 1.0, gradients[i]);
    }
    EXPECT_TRUE(at::equal(results[0], results[1]));
    EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LowRank,
                         testing::Combine(testing::Values(at::kBFloat16, at::kHalf, at::kFloat),
                                          testing::Values(Shape{64, 64, 16}, Shape{1, 2, 2},
                                                          Shape{7, 66, 6}, Shape{131, 578, 48},
                                                          Shape{33, 200, 64}, Shape{5, 63, 7},
                                                          Shape{40, 96, 98})),
                         [](const auto& info) {
                           const Shape s = std::get<1>(info.param);
                           const std::string dtype = c10::toString(std::get<0>(info.param));
                           return dtype + "_" + std::to_string(s.tokens) + "x" +
                                  std::to_string(s.features) + "_rank" + std::to_string(s.rank);
                         });

}  // namespace
}  // namespace qlora::lora
