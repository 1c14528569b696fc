#include "optim/grad_clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "tests/support/trained_tensors.h"

namespace qlora::optim {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(GradClip, TheNormOfThreeAndFourIsFive) {
  const at::Tensor flat = at::zeros({40000});
  flat[17] = 3.0f;
  flat[39999] = -4.0f;
  EXPECT_EQ(gradient_norm(flat, 0).norm, 5.0);
}

TEST(GradClip, ScalesToTheMaximumOnlyWhenTheNormIsAboveIt) {
  const at::Tensor flat = at::full({4}, 2.0f);  // norm 4
  EXPECT_DOUBLE_EQ(gradient_norm(flat, 1.0).scale, 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(gradient_norm(flat, 4.1).scale, 1.0);
  EXPECT_EQ(gradient_norm(flat, 0).scale, 1.0);
  EXPECT_EQ(gradient_norm(at::zeros({4}), 1.0).scale, 1.0);
}

TEST(GradClip, AgreesWithADoubleSumOfSquares) {
  for (const int64_t count : {1, 15, 16, 17, 16383, 16384, 16385, 500001}) {
    const at::Tensor flat = test::TrainedTensors({count}).values;
    const double expected = flat.to(at::kDouble).norm().item<double>();
    // Double sums: relative error below count * 2^-53.
    EXPECT_NEAR(gradient_norm(flat, 0).norm, expected, 1e-10 * expected) << count;
  }
}

TEST(GradClip, HasTheSameBitsForEveryNumberOfThreads) {
  const at::Tensor flat = test::TrainedTensors({1000003}).values;
  const int before = num_threads();
  set_num_threads(1);
  const double expected = gradient_norm(flat, 0).norm;
  for (const int threads : {2, 3, 7}) {
    set_num_threads(threads);
    EXPECT_EQ(gradient_norm(flat, 0).norm, expected) << threads;
  }
  set_num_threads(before);
}

TEST(GradClip, TheLargestFloatsDoNotOverflowTheNorm) {
  const GradientNorm result =
      gradient_norm(at::full({100000}, std::numeric_limits<float>::max()), 1.0);
  EXPECT_TRUE(result.finite());
  EXPECT_GT(result.scale, 0.0);
}

TEST(GradClip, NamesTheFirstParameterThatIsNotFinite) {
  for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
    test::TrainedTensors tensors({5000, 300, 20000});
    tensors.draw_gradients(1);
    EXPECT_EQ(first_nonfinite_gradient(tensors.parameters), "");
    EXPECT_TRUE(gradient_norm(tensors.gradients, 1.0).finite());
    tensors.parameters[2].gradient[19999] = bad;
    tensors.parameters[1].gradient[7] = bad;
    const GradientNorm result = gradient_norm(tensors.gradients, 1.0);
    EXPECT_FALSE(result.finite());
    EXPECT_EQ(result.scale, 0.0);
    EXPECT_EQ(first_nonfinite_gradient(tensors.parameters), "tensor1");
  }
}

TEST(GradClip, RefusesOtherTypesAndLimits) {
  EXPECT_THROW(gradient_norm(at::zeros({4}, at::kDouble), 1.0), Error);
  EXPECT_THROW(gradient_norm(at::zeros({4, 4}).t().slice(0, 0, 2), 1.0), Error);
  EXPECT_THROW(gradient_norm(at::zeros({4}), -1.0), Error);
  EXPECT_THROW(gradient_norm(at::zeros({4}), std::nan("")), Error);
}

}  // namespace
}  // namespace qlora::optim
