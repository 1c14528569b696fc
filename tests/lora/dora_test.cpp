// DoRA and trained biases against the formulas written with torch's own operations.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/seed.h"
#include "lora/attach.h"
#include "lora/dropout.h"

namespace qlora::lora {
namespace {

struct Layer {
  quant::Workspace workspace;
  at::Tensor weight = at::randn({6, 8}), bias = at::randn({6});
  LinearGroup group;
  std::unique_ptr<AdapterSet> adapters;

  explicit Layer(const LoraOptions& options, const std::string& other = "") {
    std::vector<LoraLinear> layers(1);
    layers[0].name = other.empty() ? "m.proj" : other;
    layers[0].base = std::make_unique<quant::DenseWeight>(weight);
    layers[0].bias = bias;
    group = LinearGroup(std::move(layers));
    adapters =
        std::make_unique<AdapterSet>(options, std::vector<LinearGroup*>{&group}, at::kFloat, 1);
  }
  at::Tensor named(const std::string& suffix) const {
    for (const AdapterTensor& tensor : adapters->tensors())
      if (tensor.name.ends_with(suffix)) return tensor.value;
    return {};
  }
  at::Tensor gradient(const std::string& suffix) const {
    for (const AdapterTensor& tensor : adapters->tensors())
      if (tensor.name.ends_with(suffix)) return tensor.gradient;
    return {};
  }
  ForwardContext context(bool training = false) {
    ForwardContext c;
    c.workspace = &workspace;
    c.training = training;
    c.dropout_key = 4;
    return c;
  }
  // Some point away from the start.
  void move() {
    at::NoGradGuard no_grad;
    named("lora_B.weight").normal_();
    named("magnitude_vector").mul_(at::rand({6}).add_(0.5));
    adapters->publish();
  }
};

LoraOptions dora(double dropout = 0) {
  LoraOptions options;
  options.rank = 3;
  options.alpha = 6;
  options.dropout = dropout;
  options.use_dora = true;
  options.bias = "lora_only";
  return options;
}

class Dora : public testing::TestWithParam<double> {};
INSTANTIATE_TEST_SUITE_P(Dropout, Dora, testing::Values(0.0, 0.5));

TEST_P(Dora, ForwardAndGradientsAreThoseOfTheFormula) {
  at::manual_seed(3);
  Layer layer(dora(GetParam()));
  layer.move();
  const at::Tensor x = at::randn({5, 8}).requires_grad_(true), weights = at::randn({5, 6});
  const auto context = layer.context(true);
  const at::Tensor y = layer.group.forward(x, context)[0];
  (y * weights).sum().backward();

  const auto leaf = [&](const std::string& suffix) {
    return layer.named(suffix).detach().clone().requires_grad_(true);
  };
  const at::Tensor rx = x.detach().clone().requires_grad_(true), a = leaf("lora_A.weight"),
                   b = leaf("lora_B.weight"), m = leaf("magnitude_vector"), bias = leaf("bias");
  const at::Tensor mask =
      GetParam() > 0
          ? dropout(at::ones({5, 8}), GetParam(),
                    random_key(layer.group.layers()[0].adapter->dropout_key, context.dropout_key))
          : at::ones({5, 8});
  const at::Tensor dropped = rx * mask;
  const at::Tensor norm = (layer.weight + 2 * at::mm(b, a)).detach().norm(2, 1);
  const at::Tensor ry = at::mm(rx, layer.weight.t()) +
                        (m / norm - 1) * at::mm(dropped, layer.weight.t()) +
                        m / norm * 2 * at::mm(at::mm(dropped, a.t()), b.t()) + bias;
  (ry * weights).sum().backward();

  EXPECT_TRUE(at::allclose(y, ry, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x.grad(), rx.grad(), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer.gradient("lora_A.weight"), a.grad(), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer.gradient("lora_B.weight"), b.grad(), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer.gradient("magnitude_vector"), m.grad(), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer.gradient("bias"), bias.grad(), 1e-5, 1e-5));
}

TEST(Dora, StartsAsTheBaseAndKeepsTheNormsOfWhatItMoved) {
  Layer layer(dora());
  at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({5, 8});
  const at::Tensor base = at::addmm(layer.bias, x, layer.weight.t());
  EXPECT_TRUE(at::allclose(layer.group.forward(x, layer.context())[0], base, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer.named("magnitude_vector"), layer.weight.norm(2, 1), 1e-5, 1e-6));
  layer.move();
  const Adapter& adapter = *layer.group.layers()[0].adapter;
  const at::Tensor moved = layer.weight + 2 * at::mm(adapter.b, adapter.a);
  EXPECT_TRUE(at::allclose(adapter.norm, moved.norm(2, 1), 1e-5, 1e-6));
}

TEST(TrainedBias, AllTakesLayersWithoutAdapterTooAndLoraOnlyDoesNot) {
  LoraOptions options;
  options.targets = {"q_proj"};
  const auto biases_of = [&](const std::string& bias) {
    options.bias = bias;
    std::vector<LoraLinear> layers(2);
    for (size_t i = 0; i < 2; ++i) {
      layers[i].name = i == 0 ? "m.q_proj" : "m.v_proj";
      layers[i].base = std::make_unique<quant::DenseWeight>(at::randn({6, 8}));
      layers[i].bias = at::randn({6});
    }
    LinearGroup group(std::move(layers));
    const AdapterSet set(options, {&group}, at::kFloat, 1);
    std::vector<std::string> names;
    for (const AdapterTensor& tensor : set.tensors())
      if (tensor.name.ends_with("bias")) names.push_back(tensor.name);
    return names;
  };
  EXPECT_TRUE(biases_of("none").empty());
  EXPECT_EQ(biases_of("lora_only"),
            std::vector<std::string>{"base_model.model.m.q_proj.base_layer.bias"});
  EXPECT_EQ(biases_of("all"), (std::vector<std::string>{"base_model.model.m.q_proj.base_layer.bias",
                                                        "base_model.model.m.v_proj.bias"}));
}

TEST(TrainedBias, OfAGroupWithoutAdaptersGetsItsGradient) {
  LoraOptions options;
  options.targets = {"q_proj"};
  options.bias = "all";
  std::vector<LoraLinear> first(1), second(1);
  first[0].name = "m.q_proj";
  second[0].name = "m.o_proj";
  for (auto* layers : {&first, &second}) {
    (*layers)[0].base = std::make_unique<quant::DenseWeight>(at::eye(4));
    (*layers)[0].bias = at::zeros({4});
  }
  LinearGroup q(std::move(first)), o(std::move(second));
  const AdapterSet set(options, {&q, &o}, at::kFloat, 1);
  quant::Workspace workspace;
  ForwardContext context;
  context.workspace = &workspace;
  o.forward(at::ones({3, 4}), context)[0].sum().backward();
  EXPECT_EQ(o.layers()[0].trained_bias->gradient.sum().item<float>(), 12);
}

}  // namespace
}  // namespace qlora::lora
