#include "lora/stacked_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lora/columns.h"
#include "quant/make_frozen_weight.h"

namespace qlora::lora {
namespace {

TEST(Columns, TheColumnsOfAMatrixJoinToItAgain) {
  const at::Tensor all = at::randn({5, 12});
  const auto parts = columns_of(all, {3, 8, 1});
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_TRUE(at::equal(parts[1], all.narrow(1, 3, 8)));
  parts[1].zero_();
  EXPECT_EQ(all.narrow(1, 3, 8).abs().max().item<float>(), 0.0f);  // the same memory
  const at::Tensor joined = joined_columns(parts);
  ASSERT_TRUE(joined.defined());
  EXPECT_EQ(joined.data_ptr(), all.data_ptr());
  EXPECT_TRUE(at::equal(joined, all));
}

TEST(Columns, WhatDoesNotLieSideBySideIsNotJoined) {
  const at::Tensor all = at::randn({5, 12});
  const auto parts = columns_of(all, {3, 8, 1});
  EXPECT_FALSE(joined_columns({parts[1], parts[0]}).defined());
  EXPECT_FALSE(joined_columns({parts[0], parts[2]}).defined());
  EXPECT_FALSE(joined_columns({parts[0], parts[1].clone()}).defined());
  EXPECT_TRUE(joined_columns({parts[0], parts[1]}).defined());
}

std::vector<LoraLinear> layers_of(const std::string& method, std::vector<int64_t> widths) {
  quant::QuantizationOptions options;
  options.method = method;
  std::vector<LoraLinear> layers;
  for (const int64_t width : widths) {
    LoraLinear layer;
    layer.name = "layer" + std::to_string(layers.size());
    layer.base = quant::make_frozen_weight(at::randn({width, 64}), options, layer.name);
    layers.push_back(std::move(layer));
  }
  return layers;
}

TEST(StackedWeights, OneProductIsThatOfTheLayersOneByOne) {
  const auto layers = layers_of("nf4", {16, 8, 24});
  quant::Workspace workspace;
  const at::Tensor x = at::randn({7, 64}), before = at::randn({7, 48}), dy = at::randn({7, 48});
  at::Tensor y = before.clone(), of_few_rows = before.clone(), dx = at::full({7, 64}, NAN);
  stacked_forward_into(layers, x, true, y, workspace);
  few_rows_forward_into(layers, x, true, of_few_rows);
  stacked_input_gradient(layers, dy, false, dx, workspace);

  std::vector<at::Tensor> parts;
  at::Tensor wanted_dx = at::zeros({7, 64});
  const auto parts_of_dy = columns_of(dy, {16, 8, 24});
  for (size_t i = 0; i < layers.size(); ++i) {
    parts.push_back(layers[i].base->forward(x, workspace));
    layers[i].base->input_gradient_into(parts_of_dy[i], wanted_dx, true, workspace);
  }
  // fp32 sums of 64 and 48 terms in another order.
  EXPECT_TRUE(at::allclose(y, before + at::cat(parts, 1), 1e-5, 1e-4));
  EXPECT_TRUE(at::allclose(of_few_rows, before + at::cat(parts, 1), 1e-5, 1e-4));
  EXPECT_TRUE(at::allclose(dx, wanted_dx, 1e-5, 1e-4));
}

quant::ProductRun run_of(const std::vector<LoraLinear>& layers, int64_t tokens, bool sums) {
  return quant::product_route(product_facts(layers, at::randn({tokens, 64}), sums),
                              quant::Pass::kForward)
      .run;
}

TEST(StackedWeights, FormatsWithProductsOfTheirOwnAndSingleLayersAreNotStacked) {
  EXPECT_EQ(run_of(layers_of("int8", {16, 16}), 40, false), quant::ProductRun::kInt8);
  EXPECT_EQ(run_of(layers_of("none", {16, 16}), 40, false), quant::ProductRun::kEach);
  EXPECT_EQ(run_of(layers_of("nf4", {16}), 40, false), quant::ProductRun::kEach);
  EXPECT_EQ(run_of(layers_of("nf4", {16, 16}), 40, false), quant::ProductRun::kJoined);
  EXPECT_EQ(run_of(layers_of("int8_weight_only", {16, 16}), 40, false), quant::ProductRun::kJoined);
}

TEST(StackedWeights, WhatIsTrainedWholeOrHasAMagnitudeIsMultipliedByItself) {
  for (const bool sums : {false, true})
    for (const int64_t tokens : {1, 40}) {
      std::vector<LoraLinear> layers = layers_of("nf4", {16, 16});
      EXPECT_NE(run_of(layers, tokens, sums), quant::ProductRun::kEach);
      layers[1].adapter = std::make_unique<Adapter>();
      layers[1].adapter->rank = 4;
      EXPECT_NE(run_of(layers, tokens, sums), quant::ProductRun::kEach);
      layers[1].adapter->magnitude = at::ones({16});
      EXPECT_EQ(run_of(layers, tokens, sums), quant::ProductRun::kEach);
      layers[1].adapter.reset();
      layers[0].trained_rows = std::make_unique<TrainedRows>();
      EXPECT_EQ(run_of(layers, tokens, sums), quant::ProductRun::kEach);
      layers[0].trained_rows.reset();
      layers[0].trained_weight = std::make_unique<TrainedTensor>();
      EXPECT_EQ(run_of(layers, tokens, sums), quant::ProductRun::kEach);
    }
}

TEST(StackedWeights, TheFactsAreThoseOfTheLayers) {
  std::vector<LoraLinear> layers = layers_of("nf4", {16, 24});
  layers[1].adapter = std::make_unique<Adapter>();
  layers[1].adapter->rank = 6;
  const auto facts = product_facts(layers, at::ones({5, 64}).to(at::kBFloat16), true);
  EXPECT_EQ(facts.left.rows, 5);
  EXPECT_EQ(facts.left.dtype, at::kBFloat16);
  EXPECT_EQ(facts.left.device, at::kCPU);
  EXPECT_TRUE(facts.sums);
  ASSERT_EQ(facts.layers.size(), 2u);
  EXPECT_EQ(facts.layers[0].rank, 0);
  EXPECT_EQ(facts.layers[1].rank, 6);
  EXPECT_EQ(facts.layers[1].out, 24);
  EXPECT_EQ(facts.layers[1].in, 64);
  EXPECT_EQ(facts.layers[1].weight, layers[1].base->traits());
}

}  // namespace
}  // namespace qlora::lora
