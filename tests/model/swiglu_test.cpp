#include "model/swiglu.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace qlora::model {
namespace {

// Gates from far below zero to far above, and widths with and without a rest of a vector.
at::Tensor gates(int64_t tokens, int64_t width, at::ScalarType dtype) {
  at::Tensor t = at::randn({tokens, width}) * 4;
  const float special[] = {0.0f, -0.0f, 90.0f, -90.0f, 1e4f, -1e4f, 1e-30f};
  for (int64_t i = 0; i < 7; ++i) t[0][i] = special[i];
  return t.to(dtype);
}

class SwigluOf : public ::testing::TestWithParam<at::ScalarType> {};

// In float64: y = g u / (1 + e^-g), and its derivatives. Rounded once, so within half a step of the
// type, and of 1e-5 that the exponential may take of a bf16 value's 4e-3.
TEST_P(SwigluOf, IsTheFormulaRoundedOnce) {
  at::manual_seed(3);
  const double step = GetParam() == at::kBFloat16 ? 1.0 / 256 + 2e-5 : 2e-6;
  for (const int64_t width : {32, 40, 31, 1536}) {
    const at::Tensor gate = gates(5, width, GetParam()), up = at::randn({5, width}).to(GetParam());
    const at::Tensor dy = at::randn({5, width}).to(GetParam());
    at::Tensor g = gate.detach().clone().requires_grad_(true),
               u = up.detach().clone().requires_grad_(true);
    const at::Tensor y = swiglu(g, u);
    y.backward(dy);

    at::Tensor wide_g = gate.to(at::kDouble).requires_grad_(true),
               wide_u = up.to(at::kDouble).requires_grad_(true);
    const at::Tensor exact = wide_g * wide_g.sigmoid() * wide_u;
    exact.backward(dy.to(at::kDouble));
    const auto expect = [&](const at::Tensor& found, const at::Tensor& wanted, const char* what) {
      const at::Tensor apart = (found.to(at::kDouble) - wanted).abs();
      // 1 + g (1 - s) cancels where g s' = -s: there what is lost is a share of its terms.
      EXPECT_TRUE((apart <= wanted.abs() * step + 3e-6).all().item<bool>())
          << what << " of width " << width << ": " << apart.max().item<double>();
    };
    expect(y.detach(), exact.detach(), "y");
    expect(g.grad(), wide_g.grad(), "the gradient of the gate");
    expect(u.grad(), wide_u.grad(), "the gradient of up");
  }
}

TEST_P(SwigluOf, NaNStaysNaN) {
  at::Tensor gate = at::zeros({1, 64}), up = at::ones({1, 64});
  gate[0][3] = std::nan("");
  up[0][40] = std::nan("");
  const at::Tensor y = swiglu(gate.to(GetParam()), up.to(GetParam()));
  EXPECT_EQ(at::isnan(y).sum().item<int64_t>(), 2);
  EXPECT_TRUE(std::isnan(y[0][3].item<float>()) && std::isnan(y[0][40].item<float>()));
}

INSTANTIATE_TEST_SUITE_P(Types, SwigluOf, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return c10::toString(info.param); });

}  // namespace
}  // namespace qlora::model
