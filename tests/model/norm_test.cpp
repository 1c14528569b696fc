#include "model/norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "tests/support/norms.h"

namespace qlora::model {
namespace {

TEST(AddRmsNorm, ATrainedWeightGetsItsGradient) {
  for (const int64_t hidden : {5, 16, 70}) {  // below, at and beyond a block of columns
    const at::Tensor residual = at::randn({9, hidden}), delta = at::randn({9, hidden});
    const at::Tensor weight = at::rand({hidden}) + 0.5, weights = at::randn({9, hidden});
    at::Tensor gradient = at::ones({hidden});  // it is added to
    const auto out = test::add_rms_norm(residual, delta, weight, 1e-5, at::kFloat, gradient);
    (out.normed * weights).sum().backward();
    const at::Tensor leaf = weight.clone().requires_grad_(true), r = residual + delta;
    const at::Tensor scale = at::rsqrt(r.square().mean(-1, true) + 1e-5);
    (r * scale * leaf * weights).sum().backward();
    EXPECT_TRUE(at::allclose(gradient - 1, leaf.grad(), 1e-5, 1e-5)) << hidden;
  }
}

TEST(AddRmsNorm, AFrozenWeightNeedsNoGradient) {
  const auto out =
      test::add_rms_norm(at::randn({3, 8}), at::Tensor(), at::ones({8}), 1e-5, at::kFloat);
  EXPECT_FALSE(out.normed.requires_grad());
}

TEST(AddRmsNorm, TheWeightsGradientHasTheSameBitsOnAnyNumberOfThreads) {
  const at::Tensor residual = at::randn({300, 200}), weights = at::randn({300, 200});
  const auto gradient = [&](int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    at::Tensor sum = at::zeros({200});
    const auto out =
        test::add_rms_norm(residual, at::Tensor(), at::ones({200}), 1e-5, at::kFloat, sum);
    (out.normed * weights).sum().backward();
    set_num_threads(before);
    return sum;
  };
  EXPECT_TRUE(at::equal(gradient(1), gradient(2)));
}

// In double: each group of each row normed by itself.
at::Tensor definition(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const NormRule& rule, int64_t groups) {
  at::Tensor parts = x.view({x.size(0), groups, x.size(1) / groups});
  if (rule.kind == NormKind::kLayer) parts = parts - parts.mean(-1, true);
  at::Tensor n = parts * at::rsqrt(parts.square().mean(-1, true) + rule.eps);
  if (weight.defined()) n = n * (weight + rule.offset);
  if (bias.defined()) n = n + bias;
  return n.reshape(x.sizes());
}

// Numbers of `type` are this far apart, relative to them, and sums in fp32 are a little off.
void expect_close(const at::Tensor& found, const at::Tensor& wanted, at::ScalarType type,
                  const std::string& what) {
  const double step = type == at::kFloat ? 1e-5 : type == at::kHalf ? 6e-4 : 4.1e-3;
  const at::Tensor apart = (found.to(at::kDouble) - wanted).abs();
  EXPECT_TRUE((apart <= wanted.abs() * step + 1e-5).all().item<bool>())
      << what << " in " << c10::toString(type) << ": " << apart.max().item<double>();
}

struct Case {
  const char* name;
  NormRule rule;
  bool weight = true, bias = false;
};
const Case kCases[] = {
    {"RMSNorm", {NormKind::kRms, 1e-6}},
    {"RMSNorm of 1 + w", {NormKind::kRms, 1e-6, 1.0}},
    {"RMSNorm without a weight", {NormKind::kRms, 1e-5}, false},
    {"LayerNorm", {NormKind::kLayer, 1e-5}, true, true},
    {"LayerNorm without a bias", {NormKind::kLayer, 1e-5}},
    {"LayerNorm of 1 + w", {NormKind::kLayer, 1e-5, 1.0}, true, true},
    {"LayerNorm without parameters", {NormKind::kLayer, 1e-5}, false},
};
const at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

// A norm whose parameters are all trained, and what is expected of it in double.
struct Trained {
  lora::NormWeight norm;
  at::Tensor weight, bias;  // leaves in double; undefined where there is none

  Trained(const Case& c, at::IntArrayRef shape) {
    if (c.weight) {
      const at::Tensor w = at::randn(shape);
      weight = w.to(at::kDouble).requires_grad_(true);
      norm = test::norm_weight(w, at::ones(shape));
    }
    if (!c.bias) return;
    norm.frozen_bias = at::randn(shape);
    norm.trained_bias = std::make_unique<lora::TrainedTensor>(
        lora::TrainedTensor{norm.frozen_bias, at::ones(shape), {}});
    bias = norm.frozen_bias.to(at::kDouble).requires_grad_(true);
  }

  void expect_gradients(const std::string& what) const {
    // Added to a buffer of ones, in fp32.
    if (weight.defined())
      expect_close(norm.trained->gradient - 1, weight.grad(), at::kFloat, what + ", the weight's");
    if (bias.defined())
      expect_close(norm.trained_bias->gradient - 1, bias.grad(), at::kFloat, what + ", the bias's");
  }
};

TEST(AddNorm, IsTheFormulaAndHasItsGradients) {
  at::manual_seed(5);
  for (const Case& c : kCases)
    for (const at::ScalarType type : kTypes)
      for (const int64_t hidden : {5, 16, 70}) {
        const std::string what = fmt::format("{} of {}", c.name, hidden);
        const Trained t(c, {hidden});
        const at::Tensor residual = at::randn({9, hidden}) + 0.5;
        const at::Tensor delta = at::randn({9, hidden}).to(type);
        const at::Tensor dy = at::randn({9, hidden}).to(type), d_sum = at::randn({9, hidden});
        const at::Tensor r = residual.clone().requires_grad_(true),
                         d = delta.clone().requires_grad_(true);
        const NormOutput out = add_norm(r, d, t.norm, c.rule, type, true);
        ASSERT_EQ(out.normed.scalar_type(), type);
        ((out.normed * dy).sum(at::kFloat) + (out.residual * d_sum).sum()).backward();

        const at::Tensor wide_r = residual.to(at::kDouble).requires_grad_(true),
                         wide_d = delta.to(at::kDouble).requires_grad_(true);
        const at::Tensor sum = wide_r + wide_d;
        const at::Tensor wanted = definition(sum, t.weight, t.bias, c.rule, 1);
        ((wanted * dy.to(at::kDouble)).sum() + (sum * d_sum.to(at::kDouble)).sum()).backward();
        expect_close(out.residual.detach(), sum.detach(), at::kFloat, what + ", the sum");
        expect_close(out.normed.detach(), wanted.detach(), type, what + ", n");
        expect_close(r.grad(), wide_r.grad(), at::kFloat, what + ", the residual's gradient");
        expect_close(d.grad(), wide_d.grad(), type, what + ", the delta's gradient");
        t.expect_gradients(what);
        EXPECT_TRUE(at::equal(norm_again(out.residual.detach(), t.norm, c.rule, type, true),
                              out.normed.detach()))
            << what;
        at::NoGradGuard no_grad;
        EXPECT_TRUE(
            at::equal(add_norm(residual, delta, t.norm, c.rule, type, true).normed, out.normed))
            << what;
      }
}

TEST(AddNorm, ANormOfNoneIsTheSumInTheComputeType) {
  for (const at::ScalarType type : kTypes) {
    const at::Tensor r = at::randn({3, 7}).requires_grad_(true);
    const at::Tensor d = at::randn({3, 7}).to(type).requires_grad_(true);
    const NormOutput out = add_norm(r, d, {}, {NormKind::kNone}, type, true);
    EXPECT_TRUE(at::equal(out.residual, r + d));
    EXPECT_TRUE(at::equal(out.normed, (r + d).to(type)));
    (out.normed.to(at::kFloat).sum() + 2 * out.residual.sum()).backward();
    EXPECT_TRUE(at::equal(r.grad(), at::full({3, 7}, 3.0)));
    EXPECT_TRUE(at::equal(d.grad(), at::full({3, 7}, 3.0).to(type)));
    EXPECT_TRUE(at::equal(norm_again(out.residual.detach(), {}, {NormKind::kNone}, type, true),
                          out.normed.detach()));
  }
}

TEST(AddNorm, WithAdaptersOffTheFrozenParametersCount) {
  const at::Tensor x = at::randn({4, 6});
  lora::NormWeight norm(at::ones({6}), at::zeros({6}));
  norm.trained = std::make_unique<lora::TrainedTensor>(
      lora::TrainedTensor{at::full({6}, 2.0), at::zeros({6}), {}});
  norm.trained_bias = std::make_unique<lora::TrainedTensor>(
      lora::TrainedTensor{at::full({6}, 3.0), at::zeros({6}), {}});
  const NormRule rule{NormKind::kLayer, 1e-5};
  const at::Tensor off = add_norm(x, {}, norm, rule, at::kFloat, false).normed;
  EXPECT_FALSE(off.requires_grad());
  const at::Tensor on = add_norm(x, {}, norm, rule, at::kFloat, true).normed;
  EXPECT_TRUE(at::allclose(on.detach(), 2 * off + 3, 1e-6, 1e-6));
}

TEST(NormRows, NormsEachGroupOfAView) {
  at::manual_seed(6);
  struct Groups {
    int64_t count, size;
    bool own;  // a weight of its own for each
  };
  for (const Case& c : kCases)
    for (const at::ScalarType type : kTypes)
      for (const Groups& g : {Groups{1, 40, false}, Groups{4, 16, false}, Groups{3, 10, true},
                              Groups{3, 64, true}, Groups{5, 7, false}}) {
        const std::string what = fmt::format("{} of {} x {}", c.name, g.count, g.size);
        const int64_t width = g.count * g.size;
        const Trained t(
            c, g.own ? std::vector<int64_t>{g.count, g.size} : std::vector<int64_t>{g.size});
        const at::Tensor all = (at::randn({9, width + 20}) + 0.3).to(type);
        const at::Tensor leaf = all.clone().requires_grad_(true);
        const at::Tensor dy = at::randn({9, width}).to(type);
        const at::Tensor n = norm_rows(leaf.narrow(1, 12, width), g.count, t.norm, c.rule, true);
        ASSERT_TRUE(n.is_contiguous() && n.scalar_type() == type);
        n.backward(dy);

        const at::Tensor wide = all.to(at::kDouble).requires_grad_(true);
        const at::Tensor wanted =
            definition(wide.narrow(1, 12, width).contiguous(), t.weight, t.bias, c.rule, g.count);
        wanted.backward(dy.to(at::kDouble));
        expect_close(n.detach(), wanted.detach(), type, what + ", n");
        expect_close(leaf.grad(), wide.grad(), type, what + ", the gradient");
        t.expect_gradients(what);
        at::NoGradGuard no_grad;
        EXPECT_TRUE(
            at::equal(norm_rows(all.narrow(1, 12, width), g.count, t.norm, c.rule, true), n));
      }
}

TEST(NormRows, AFrozenNormOfAFrozenInputNeedsNoGradient) {
  EXPECT_FALSE(norm_rows(at::randn({3, 8}), 2, at::ones({4}), {}, true).requires_grad());
}

TEST(NormRows, TheWeightsGradientHasTheSameBitsOnAnyNumberOfThreads) {
  const at::Tensor x = at::randn({100, 300}), dy = at::randn({100, 300});
  const auto gradient = [&](int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    const at::Tensor sum = at::zeros({3, 100});
    norm_rows(x, 3, test::norm_weight(at::ones({3, 100}), sum), {NormKind::kLayer, 1e-5}, true)
        .backward(dy);
    set_num_threads(before);
    return sum;
  };
  EXPECT_TRUE(at::equal(gradient(1), gradient(2)));
}

TEST(NormRows, AWeightOfAnotherShapeIsRefused) {
  EXPECT_THROW(norm_rows(at::randn({3, 8}), 2, at::ones({5}), {}, true), Error);
  EXPECT_THROW(norm_rows(at::randn({3, 8}), 3, at::ones({4}), {}, true), Error);
  const lora::NormWeight with_bias(at::ones({4}), at::zeros({4}));
  EXPECT_THROW(norm_rows(at::randn({3, 8}), 2, with_bias, {NormKind::kRms}, true), Error);
}

}  // namespace
}  // namespace qlora::model
