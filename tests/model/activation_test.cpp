#include "model/activation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

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
    const at::Tensor y = activate(g, u);
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
  const at::Tensor y = activate(gate.to(GetParam()), up.to(GetParam()));
  EXPECT_EQ(at::isnan(y).sum().item<int64_t>(), 2);
  EXPECT_TRUE(std::isnan(y[0][3].item<float>()) && std::isnan(y[0][40].item<float>()));
}

INSTANTIATE_TEST_SUITE_P(Types, SwigluOf, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return c10::toString(info.param); });

constexpr Activation kKinds[] = {Activation::kSilu, Activation::kGelu,  Activation::kGeluTanh,
                                 Activation::kRelu, Activation::kRelu2, Activation::kClampedSilu};
const at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
const ActivationRule kClamp{Activation::kClampedSilu, 2.5, 1.3};

ActivationRule rule_of(Activation kind) {
  return kind == Activation::kClampedSilu ? kClamp : ActivationRule{kind};
}

// The definition by ATen, in double where its inputs are.
at::Tensor definition(const at::Tensor& gate, const at::Tensor& up, Activation kind) {
  const auto act = [&]() -> at::Tensor {
    switch (kind) {
      case Activation::kSilu:
        return at::silu(gate);
      case Activation::kGelu:
        return at::gelu(gate);
      case Activation::kGeluTanh:
        return at::gelu(gate, "tanh");
      case Activation::kRelu:
        return at::relu(gate);
      case Activation::kRelu2:
        return at::relu(gate).square();
      case Activation::kClampedSilu:
        break;
    }
    const at::Tensor g = at::clamp_max(gate, kClamp.limit);
    return g * at::sigmoid(kClamp.alpha * g) * (at::clamp(up, -kClamp.limit, kClamp.limit) + 1);
  }();
  return up.defined() && kind != Activation::kClampedSilu ? act * up : act;
}

void expect_close(const at::Tensor& found, const at::Tensor& wanted, const std::string& what) {
  ASSERT_EQ(found.sizes(), wanted.sizes()) << what;
  const auto type = found.scalar_type();
  // Half a step of the type. In fp32 sums of terms that nearly cancel lose a share of the terms.
  const double step = type == at::kFloat ? 2e-6 : type == at::kHalf ? 5e-4 : 1.0 / 256 + 2e-5;
  const at::Tensor apart = (found.to(at::kDouble) - wanted).abs();
  EXPECT_TRUE((apart <= wanted.abs() * step + 3e-6).all().item<bool>())
      << what << " in " << c10::toString(type) << ": " << apart.max().item<double>();
}

at::Tensor leaf(const at::Tensor& t) { return t.detach().clone().requires_grad_(true); }

// fp16 holds neither the far gates nor their squares.
at::Tensor gates_of(int64_t tokens, int64_t width, at::ScalarType type) {
  return type == at::kFloat ? gates(tokens, width, type).clamp(-1e3, 1e3)
                            : (at::randn({tokens, width}) * 3).to(type);
}

TEST(Activate, GatedIsTheFormulaRoundedOnce) {
  at::manual_seed(4);
  for (const Activation kind : kKinds)
    for (const at::ScalarType type : kTypes)
      for (const int64_t width : {31, 96}) {
        const std::string what = "kind " + std::to_string(static_cast<int>(kind));
        const at::Tensor gate = gates_of(5, width, type), dy = at::randn({5, width}).to(type);
        const at::Tensor up = (at::randn({5, width}) * 2).to(type);
        const at::Tensor g = leaf(gate), u = leaf(up);
        const at::Tensor y = activate(g, u, rule_of(kind));
        y.backward(dy);
        const at::Tensor wide_g = leaf(gate.to(at::kDouble)), wide_u = leaf(up.to(at::kDouble));
        const at::Tensor wanted = definition(wide_g, wide_u, kind);
        wanted.backward(dy.to(at::kDouble));
        expect_close(y.detach(), wanted.detach(), what);
        expect_close(g.grad(), wide_g.grad(), what + ", the gradient of the gate");
        expect_close(u.grad(), wide_u.grad(), what + ", the gradient of up");

        // Both in one tensor: the same bits, and one gradient.
        const at::Tensor both = leaf(at::cat({gate, up}, 1));
        const at::Tensor of_halves = activate_halves(both, keep_halves(both, type), rule_of(kind));
        of_halves.backward(dy);
        EXPECT_TRUE(at::equal(of_halves, y)) << what;
        EXPECT_TRUE(at::equal(both.grad(), at::cat({g.grad(), u.grad()}, 1))) << what;
        const KeptGates kept = keep_halves(both, type);
        EXPECT_TRUE(at::equal(activate_again(kept, type, rule_of(kind)), y.detach())) << what;
        at::NoGradGuard no_grad;
        EXPECT_TRUE(at::equal(activate_halves(both, kept, rule_of(kind)), y)) << what;
      }
}

TEST(Activate, NotGatedIsTheFormulaRoundedOnce) {
  at::manual_seed(5);
  for (const Activation kind : kKinds) {
    if (kind == Activation::kClampedSilu) continue;
    for (const at::ScalarType type : kTypes)
      for (const int64_t width : {31, 96}) {
        const std::string what = "kind " + std::to_string(static_cast<int>(kind));
        const at::Tensor x = gates_of(5, width, type), dy = at::randn({5, width}).to(type);
        const at::Tensor narrow = leaf(x), wide = leaf(x.to(at::kDouble));
        const at::Tensor y = activate(narrow, at::Tensor(), rule_of(kind));
        y.backward(dy);
        const at::Tensor wanted = definition(wide, at::Tensor(), kind);
        wanted.backward(dy.to(at::kDouble));
        expect_close(y.detach(), wanted.detach(), what);
        expect_close(narrow.grad(), wide.grad(), what + ", the gradient");
        const KeptGates kept = keep_gates(x, at::Tensor(), type);
        EXPECT_TRUE(at::equal(activate_again(kept, type, rule_of(kind)), y.detach())) << what;
      }
  }
  EXPECT_THROW(activate(at::randn({2, 3}), at::Tensor(), kClamp), Error);
}

// Losses of float32 models shall be those of torch within 1e-6.
TEST(Activate, GeluIsTheTruthWithinAFewLastBits) {
  const at::Tensor x = at::linspace(-12, 12, 100001, at::kFloat).view({1, -1});
  for (const Activation kind : {Activation::kGelu, Activation::kGeluTanh}) {
    const at::Tensor y = activate(x, at::Tensor(), {kind});
    const at::Tensor truth = definition(x.to(at::kDouble), at::Tensor(), kind);
    EXPECT_LE(((y.to(at::kDouble) - truth).abs() / (x.to(at::kDouble).abs() + 1e-30))
                  .max()
                  .item<double>(),
              1.5e-7);
    // ATen's own of float32 is up to 1.2e-6 from the truth (at 3.49).
    EXPECT_TRUE(at::allclose(y, definition(x, at::Tensor(), kind), 1e-6, 1.5e-6));
  }
}

at::Tensor slope_of(const at::Tensor& x, Activation kind) {
  const at::Tensor own = leaf(x);
  activate(own, at::Tensor(), {kind}).sum().backward();
  return own.grad();
}

TEST(Activate, InfinitiesAndNaNsStayWhatTheyAre) {
  const float infinity = INFINITY;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::tensor({infinity, std::nanf(""), 1e30f, 200.0f}).view({1, 4}).to(type);
    for (const Activation kind : kKinds) {
      if (kind == Activation::kClampedSilu) continue;
      const at::Tensor y = activate(x, at::Tensor(), {kind});
      EXPECT_EQ(y[0][0].item<float>(), infinity) << static_cast<int>(kind);
      EXPECT_TRUE(std::isnan(y[0][1].item<float>())) << static_cast<int>(kind);
    }
    const at::Tensor far = at::full({1, 3}, -1e30f, type).requires_grad_(true);
    for (const Activation kind : {Activation::kGelu, Activation::kGeluTanh})
      EXPECT_LE(slope_of(far, kind).abs().max().item<double>(), 1e-30);
  }
}

TEST(Activate, GradientsAreMadeOfTheNarrowerCopies) {
  const at::Tensor gate = at::randn({3, 40}), up = at::randn({3, 40}), dy = at::randn({3, 40});
  for (const Activation kind : kKinds) {
    const at::Tensor g = leaf(gate), u = leaf(up);
    activate(g, u, keep_gates(g, u, at::kBFloat16), rule_of(kind)).backward(dy);
    const at::Tensor rounded_g = leaf(gate.to(at::kBFloat16).to(at::kFloat)),
                     rounded_u = leaf(up.to(at::kBFloat16).to(at::kFloat));
    activate(rounded_g, rounded_u, rule_of(kind)).backward(dy);
    EXPECT_TRUE(at::equal(g.grad(), rounded_g.grad()));
    EXPECT_TRUE(at::equal(u.grad(), rounded_u.grad()));
  }
}

}  // namespace
}  // namespace qlora::model
