#include "lora/linear_group.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/seed.h"
#include "lora/attach.h"
#include "lora/dropout.h"

namespace qlora::lora {
namespace {

struct SmallGroup {
  quant::Workspace workspace;
  at::Tensor w1 = at::randn({6, 8}), w2 = at::randn({4, 8});
  LinearGroup group;
  LoraOptions options;
  std::unique_ptr<AdapterSet> adapters;

  explicit SmallGroup(double dropout = 0) {
    std::vector<LoraLinear> layers(2);
    layers[0].name = "m.a_proj";
    layers[0].base = std::make_unique<quant::DenseWeight>(w1);
    layers[1].name = "m.b_proj";
    layers[1].base = std::make_unique<quant::DenseWeight>(w2);
    group = LinearGroup(std::move(layers));
    options.rank = 3;
    options.alpha = 6;
    options.dropout = dropout;
    adapters =
        std::make_unique<AdapterSet>(options, std::vector<LinearGroup*>{&group}, at::kFloat, 1);
    at::NoGradGuard no_grad;
    for (auto& t : adapters->tensors())
      if (t.name.ends_with("lora_B.weight")) at::Tensor(t.value).normal_();
    adapters->publish();
  }
  ForwardContext context(bool training = false) {
    ForwardContext c;
    c.workspace = &workspace;
    c.training = training;
    c.dropout_key = 4;
    return c;
  }
};

TEST(LinearGroup, ForwardAndGradientsAreThoseOfTheFormula) {
  at::manual_seed(3);
  SmallGroup s;
  const at::Tensor x = at::randn({5, 8}).requires_grad_(true);
  const auto context = s.context();
  const auto y = s.group.forward(x, context);
  const at::Tensor weight_y = at::randn({5, 6}), weight_z = at::randn({5, 4});
  ((y[0] * weight_y).sum() + (y[1] * weight_z).sum()).backward();

  const at::Tensor rx = x.detach().clone().requires_grad_(true);
  std::vector<at::Tensor> leaves;
  for (const auto& t : s.adapters->tensors())
    leaves.push_back(t.value.detach().clone().requires_grad_(true));
  // tensors() lists A and B of each module in turn; scaling is alpha / rank = 2.
  const at::Tensor ry = at::mm(rx, s.w1.t()) + 2 * at::mm(at::mm(rx, leaves[0].t()), leaves[1].t());
  const at::Tensor rz = at::mm(rx, s.w2.t()) + 2 * at::mm(at::mm(rx, leaves[2].t()), leaves[3].t());
  ((ry * weight_y).sum() + (rz * weight_z).sum()).backward();

  EXPECT_TRUE(at::allclose(y[0], ry, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(y[1], rz, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x.grad(), rx.grad(), 1e-5, 1e-5));
  for (size_t i = 0; i < leaves.size(); ++i)
    EXPECT_TRUE(at::allclose(s.adapters->tensors()[i].gradient, leaves[i].grad(), 1e-5, 1e-5)) << i;
}

// One bf16 layer of a rank-2 adapter, whose sum with a residual has the values and gradients of the
// separate sum, less one rounding to bf16.
TEST(LinearGroup, OntoAResidualIsTheSumWithIt) {
  at::manual_seed(4);
  for (const bool frozen : {false, true}) {
    std::vector<LoraLinear> layers(1);
    layers[0].name = "m.o_proj";
    layers[0].base = std::make_unique<quant::DenseWeight>(at::randn({24, 16}).to(at::kBFloat16));
    LinearGroup group(std::move(layers));
    LoraOptions options;
    options.rank = 2;
    std::unique_ptr<AdapterSet> adapters;
    if (!frozen) {
      adapters = std::make_unique<AdapterSet>(options, std::vector<LinearGroup*>{&group},
                                              at::kBFloat16, 1);
      at::NoGradGuard no_grad;
      for (auto& t : adapters->tensors()) at::Tensor(t.value).normal_();
      adapters->publish();
    }
    quant::Workspace workspace;
    ForwardContext context;
    context.workspace = &workspace;
    const at::Tensor x = at::randn({40, 16}).to(at::kBFloat16), dy = at::randn({40, 24});
    if (!group.sums_onto(x, context)) GTEST_SKIP() << "no AVX-512 BF16 on this machine";

    const at::Tensor residual = at::randn({40, 24});
    const auto gradients = [&](bool onto) {
      if (adapters) adapters->gradients().zero_();
      at::Tensor xi = x.clone().requires_grad_(true), ri = residual.clone().requires_grad_(true);
      const at::Tensor sum =
          onto ? group.forward_onto_residual(ri, xi, context) : ri + group.forward(xi, context)[0];
      sum.backward(dy);
      std::vector<at::Tensor> all{sum.detach(), xi.grad(), ri.grad()};
      if (adapters) all.push_back(adapters->gradients().clone());
      return all;
    };
    const auto found = gradients(true), expected = gradients(false);
    EXPECT_EQ(found[0].scalar_type(), at::kFloat);
    const at::Tensor rounded_away = (found[0] - expected[0]).abs();
    EXPECT_TRUE((rounded_away <= (expected[0] - residual).abs() / 256 + 1e-6).all().item<bool>());
    EXPECT_GT(rounded_away.max().item<float>(), 0);
    for (size_t i = 1; i < found.size(); ++i)  // what is differentiated is the same
      EXPECT_TRUE(at::equal(found[i], expected[i])) << i << (frozen ? ", frozen" : "");
    at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(group.forward_onto_residual(residual, x, context), found[0]));
  }
}

TEST(LinearGroup, DropoutActsInTrainingOnlyAndOnTheAdapterOnly) {
  SmallGroup s(0.5);
  at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({50, 8});
  const at::Tensor evaluated = s.group.forward(x, s.context())[0];
  const at::Tensor trained = s.group.forward(x, s.context(true))[0];
  EXPECT_FALSE(at::allclose(evaluated, trained));
  const Adapter& adapter = *s.group.layers()[0].adapter;
  const uint64_t key = random_key(adapter.dropout_key, s.context().dropout_key);
  const at::Tensor dropped = lora::dropout(x, 0.5, key);
  const at::Tensor expected =
      at::mm(x, s.w1.t()) + 2 * at::mm(at::mm(dropped, adapter.a.detach().t()), adapter.b.t());
  EXPECT_TRUE(at::allclose(trained, expected, 1e-5, 1e-5));
}

TEST(AdapterSet, StartsAsPeftDoesAndIsAFunctionOfTheSeed) {
  LoraOptions options;
  const auto make = [&](uint64_t seed) {
    std::vector<LoraLinear> layers(1);
    layers[0].name = "m.proj";
    layers[0].base = std::make_unique<quant::DenseWeight>(at::randn({6, 64}));
    LinearGroup group(std::move(layers));
    AdapterSet set(options, {&group}, at::kFloat, seed);
    return set.values().clone();
  };
  const at::Tensor first = make(1);
  EXPECT_TRUE(at::equal(first, make(1)));
  EXPECT_FALSE(at::equal(first, make(2)));
  const at::Tensor a = first.narrow(0, 0, 16 * 64), b = first.narrow(0, 16 * 64, 6 * 16);
  EXPECT_EQ(b.abs().max().item<float>(), 0.0f);
  EXPECT_LE(a.abs().max().item<float>(), 0.125f);  // 1 / sqrt(64)
  EXPECT_NEAR(a.std().item<float>(), 0.125 / std::sqrt(3.0), 0.005);
}

}  // namespace
}  // namespace qlora::lora
