#include "model/norm.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/parallel_for.h"

namespace qlora::model {
namespace {

TEST(AddRmsNorm, ATrainedWeightGetsItsGradient) {
  for (const int64_t hidden : {5, 16, 70}) {  // below, at and beyond a block of columns
    const at::Tensor residual = at::randn({9, hidden}), delta = at::randn({9, hidden});
    const at::Tensor weight = at::rand({hidden}) + 0.5, weights = at::randn({9, hidden});
    at::Tensor gradient = at::ones({hidden});  // it is added to
    const auto out = add_rms_norm(residual, delta, weight, 1e-5, at::kFloat, gradient);
    (out.normed * weights).sum().backward();
    const at::Tensor leaf = weight.clone().requires_grad_(true), r = residual + delta;
    const at::Tensor scale = at::rsqrt(r.square().mean(-1, true) + 1e-5);
    (r * scale * leaf * weights).sum().backward();
    EXPECT_TRUE(at::allclose(gradient - 1, leaf.grad(), 1e-5, 1e-5)) << hidden;
  }
}

TEST(AddRmsNorm, AFrozenWeightNeedsNoGradient) {
  const auto out = add_rms_norm(at::randn({3, 8}), at::Tensor(), at::ones({8}), 1e-5, at::kFloat);
  EXPECT_FALSE(out.normed.requires_grad());
}

TEST(AddRmsNorm, TheWeightsGradientHasTheSameBitsOnAnyNumberOfThreads) {
  const at::Tensor residual = at::randn({300, 200}), weights = at::randn({300, 200});
  const auto gradient = [&](int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    at::Tensor sum = at::zeros({200});
    const auto out = add_rms_norm(residual, at::Tensor(), at::ones({200}), 1e-5, at::kFloat, sum);
    (out.normed * weights).sum().backward();
    set_num_threads(before);
    return sum;
  };
  EXPECT_TRUE(at::equal(gradient(1), gradient(2)));
}

}  // namespace
}  // namespace qlora::model
