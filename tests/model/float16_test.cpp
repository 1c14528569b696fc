// The kernels and the model in float16, beside float32 and bfloat16.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "lora/dropout.h"
#include "model/activation.h"
#include "model/attention.h"
#include "model/generate.h"
#include "model/kv_cache.h"
#include "model/norm.h"
#include "model/rotary.h"
#include "tests/support/norms.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora {
namespace {

constexpr double kHalfUlp = 1.0 / 2048;             // float16 keeps 11 bits
constexpr double kHalfSubnormal = 1.0 / (1 << 25);  // half the step between its subnormals

// Random numbers that float16 holds exactly, so that all types begin with the same ones.
at::Tensor draw(at::IntArrayRef shape, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape).to(at::kHalf).to(at::kFloat);
}

// `half` is `whole` rounded to float16 once; sums in fp32 may end in another last bit (1e-6).
void expect_rounded_once(const at::Tensor& half, const at::Tensor& whole) {
  ASSERT_EQ(half.scalar_type(), at::kHalf);
  const at::Tensor bound = whole.abs() * (kHalfUlp + 1e-6) + kHalfSubnormal + 1e-7;
  EXPECT_TRUE(((half.to(at::kFloat) - whole).abs() <= bound).all().item<bool>());
}

// A copy of `x` in `type` that takes a gradient.
at::Tensor leaf(const at::Tensor& x, at::ScalarType type) {
  return x.detach().clone().to(type).requires_grad_(true);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kFloat) - b.to(at::kFloat)).norm().item<double>();
}

// What `f` gives in float16 is nearer to float32 than what it gives in bfloat16. Three more bits
// make every single rounding error 8 times smaller; half of that is left to the luck of the sums.
void expect_finer_than_bfloat16(const std::function<at::Tensor(at::ScalarType)>& f) {
  const at::Tensor whole = f(at::kFloat);
  const double half = distance(f(at::kHalf), whole), brain = distance(f(at::kBFloat16), whole);
  EXPECT_LT(half, brain / 4);
  EXPECT_GT(half, 0);
  EXPECT_LT(half, 0.01 * whole.norm().item<double>());
}

TEST(Float16Kernels, TheNormRoundsItsOutputsOnce) {
  // 37 columns: whole vectors and a rest.
  const at::Tensor residual = draw({5, 37}, 1), delta = draw({5, 37}, 2), weight = draw({37}, 3);
  const at::Tensor d_normed = draw({5, 37}, 4), d_residual = draw({5, 37}, 5);
  std::vector<at::Tensor> normed, d_delta, d_input, sums;
  for (const auto type : {at::kHalf, at::kFloat}) {
    const at::Tensor r = leaf(residual, at::kFloat);
    const at::Tensor d = leaf(delta, type);
    const auto out = test::add_rms_norm(r, d, weight, 1e-5, type);
    at::Tensor(
        ((out.normed * d_normed.to(type)).to(at::kFloat).sum() + (out.residual * d_residual).sum()))
        .backward();
    normed.push_back(out.normed.detach());
    sums.push_back(out.residual.detach());
    d_delta.push_back(d.grad());
    d_input.push_back(r.grad());
  }
  EXPECT_TRUE(at::equal(sums[0], sums[1]));  // the residual stream is fp32 in both
  expect_rounded_once(normed[0], normed[1]);
  expect_rounded_once(d_delta[0], d_delta[1]);
  EXPECT_TRUE(at::allclose(d_input[0], d_input[1], 1e-5, 1e-6));
}

TEST(Float16Kernels, RotationRoundsOnceBothWays) {
  const model::Rotary rotary({.rope = {}, .width = 10}, 10, at::kCPU);
  const auto table = rotary.at_positions({0, 1, 17, 40});
  const at::Tensor x = draw({4, 30}, 6);
  for (const bool inverse : {false, true})
    expect_rounded_once(model::rotate(x.to(at::kHalf), table, inverse),
                        model::rotate(x.clone(), table, inverse));
}

TEST(Float16Kernels, TheActivationRoundsItsOutputsOnce) {
  std::vector<at::Tensor> y, d_gate, d_up;
  const at::Tensor gate = draw({3, 41}, 7) * 4, up = draw({3, 41}, 8), dy = draw({3, 41}, 9);
  for (const auto type : {at::kHalf, at::kFloat}) {
    const at::Tensor g = leaf(gate, type), u = leaf(up, type);
    const at::Tensor out = model::activate(g, u);
    out.backward(dy.to(type));
    y.push_back(out.detach());
    d_gate.push_back(g.grad());
    d_up.push_back(u.grad());
  }
  expect_rounded_once(y[0], y[1]);
  expect_rounded_once(d_gate[0], d_gate[1]);
  expect_rounded_once(d_up[0], d_up[1]);
}

TEST(Float16Kernels, DropoutKeepsTheSameElements) {
  const at::Tensor x = draw({7, 33}, 10);
  const at::Tensor half = lora::dropout(x.to(at::kHalf), 0.3, 5), whole = lora::dropout(x, 0.3, 5);
  EXPECT_TRUE(at::equal(half == 0, whole == 0));
  expect_rounded_once(half, whole);
}

TEST(Float16Kernels, AttentionAndItsGradientsAreFinerThanBfloat16s) {
  const model::AttentionShape shape = model::causal_attention(4, 2, 8);
  const model::Rotary rotary({.rope = {}, .width = 8}, 8, at::kCPU);
  model::AttentionContext context;
  context.cu_seqlens = {0, 9, 30};
  std::vector<int32_t> positions;
  for (int i = 0; i < 30; ++i) positions.push_back(i < 9 ? i : i - 9);
  const model::RotaryTable table = rotary.at_positions(positions);
  const at::Tensor q = draw({30, 32}, 11), k = draw({30, 16}, 12), v = draw({30, 16}, 13);
  const at::Tensor dy = draw({30, 32}, 14);
  for (const int which : {0, 1, 2, 3})
    expect_finer_than_bfloat16([&](at::ScalarType type) {
      const at::Tensor tq = leaf(q, type), tk = leaf(k, type), tv = leaf(v, type);
      const at::Tensor out = model::attention({tq, tk, tv}, shape, &table, context, 0);
      out.backward(dy.to(type));
      return std::vector<at::Tensor>{out.detach(), tq.grad(), tk.grad(),
                                     tv.grad()}[static_cast<size_t>(which)];
    });
}

TEST(Float16Kernels, TheLossAndItsGradientAreFinerThanBfloat16s) {
  const at::Tensor hidden = draw({9, 16}, 15);
  std::vector<lora::LoraLinear> layers(1);
  layers[0].base = std::make_unique<quant::DenseWeight>(draw({67, 16}, 16));
  const lora::LinearGroup head(std::move(layers));
  const std::vector<int32_t> targets = {3, -100, 0, 66, -100, 5, 5, 1, -100};
  quant::Workspace workspace;
  lora::ForwardContext context;
  context.workspace = &workspace;
  expect_finer_than_bfloat16([&](at::ScalarType type) {
    const at::Tensor h = leaf(hidden, type);
    // A scale like that of loss scaling, which leaves float16's range unharmed.
    trainer::fused_cross_entropy(h, targets, head, 64.0, context).backward();
    return h.grad();
  });
  const std::vector<float> half =
      trainer::token_losses(hidden.to(at::kHalf), targets, head, context);
  const std::vector<float> whole = trainer::token_losses(hidden, targets, head, context);
  // Weights and logits are rounded to 11 bits: a logit, a sum of 16 products whose absolute values
  // add up to less than 40 here, moves by less than 2 · 40 · 2^-11, and a loss by twice that.
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(half[i], whole[i], 4 * 40 * kHalfUlp) << i;
}

TEST(Float16Model, GradientsOfTheAdaptersAreFinerThanBfloat16s) {
  const auto input = test::tiny_input({9, 6});
  std::vector<int32_t> targets(input.tokens.begin() + 1, input.tokens.end());
  targets.push_back(-100);
  expect_finer_than_bfloat16([&](at::ScalarType type) {
    const auto model = test::tiny_model(type);
    const auto adapters = test::tiny_adapters(*model, true);
    trainer::fused_cross_entropy(model->hidden(input), targets, model->head, 1.0,
                                 model->context(input))
        .backward();
    return adapters->gradients().clone();
  });
}

TEST(Float16Model, CachedGenerationAgreesWithTheWholePass) {
  const auto model = test::tiny_model(at::kHalf);
  at::NoGradGuard no_grad;
  const auto whole = test::tiny_input({8});
  const at::Tensor expected = model->hidden(whole);
  model::KvCache cache(model->cache_widths(), 1, 8, at::kHalf, at::kCPU);
  for (int i = 0; i < 8; ++i) {
    model::ForwardInput step;
    step.tokens = {whole.tokens[static_cast<size_t>(i)]};
    step.positions = {i};
    step.cu_seqlens = {0, 1};
    step.cache = &cache;
    // Two layers with some ten roundings each of 2^-11, of values up to 4.
    EXPECT_TRUE(at::allclose(model->hidden(step)[0].to(at::kFloat), expected[i].to(at::kFloat), 0,
                             20 * 4 * kHalfUlp))
        << i;
  }
}

}  // namespace
}  // namespace qlora
