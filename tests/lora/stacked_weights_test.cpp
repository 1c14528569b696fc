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
  ASSERT_TRUE(can_stack(layers));
  quant::Workspace workspace;
  const at::Tensor x = at::randn({7, 64}), before = at::randn({7, 48}), dy = at::randn({7, 48});
  at::Tensor y = before.clone(), dx = at::full({7, 64}, NAN);
  stacked_forward_into(layers, x, true, y, workspace);
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
  EXPECT_TRUE(at::allclose(dx, wanted_dx, 1e-5, 1e-4));
}

TEST(StackedWeights, FormatsWithProductsOfTheirOwnAndSingleLayersAreNotStacked) {
  EXPECT_FALSE(can_stack(layers_of("int8", {16, 16})));
  EXPECT_FALSE(can_stack(layers_of("none", {16, 16})));
  EXPECT_FALSE(can_stack(layers_of("nf4", {16})));
  EXPECT_TRUE(can_stack(layers_of("int8_weight_only", {16, 16})));
}

}  // namespace
}  // namespace qlora::lora
