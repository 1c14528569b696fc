#include "lora/group_products.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lora/stacked_weights.h"
#include "quant/make_frozen_weight.h"
#include "quant/products/summed_product.h"

namespace qlora::lora {
namespace {

// Two NF4 layers without adapters, [16, 64] and [24, 64].
LinearGroup frozen_group() {
  quant::QuantizationOptions nf4;
  nf4.method = "nf4";
  std::vector<LoraLinear> layers(2);
  for (size_t i = 0; i < layers.size(); ++i) {
    layers[i].name = "layer" + std::to_string(i);
    layers[i].base = quant::make_frozen_weight(at::randn({i == 0 ? 16 : 24, 64}).to(at::kBFloat16),
                                               nf4, layers[i].name);
  }
  return LinearGroup(std::move(layers));
}

// A library has a kernel for each number of rows; the own kernel has the same bits for a row
// whatever their number is.
TEST(GroupProducts, RowsThatVaryAreMultipliedByTheOwnKernelsWithoutAdapters) {
  at::manual_seed(31);
  const LinearGroup group = frozen_group();
  quant::Workspace workspace;
  ForwardContext context;
  context.workspace = &workspace;
  context.rows_vary = true;
  at::Tensor weights = at::empty({40, 64}, at::kBFloat16);
  at::Tensor first = weights.narrow(0, 0, 16), second = weights.narrow(0, 16, 24);
  group.layers()[0].base->dequantize_rows(0, 0, 16, first);
  group.layers()[1].base->dequantize_rows(0, 0, 24, second);
  for (const int64_t rows : {12, 37}) {
    const at::Tensor x = at::randn({rows, 64}).to(at::kBFloat16);
    const at::Tensor dy = at::randn({rows, 40}).to(at::kBFloat16);
    const at::Tensor y = at::empty({rows, 40}, at::kBFloat16), dx = at::empty_like(x);
    const at::Tensor dx_beside_gradients = at::empty_like(x);
    group_outputs(group, {x, {}}, {}, context, y);
    const std::vector<at::Tensor> parts{dy.narrow(1, 0, 16), dy.narrow(1, 16, 24)};
    frozen_input_gradient(group, parts, dx, context);
    group_gradients(group, {x, {}}, {}, parts, dx_beside_gradients, context);
    EXPECT_TRUE(at::equal(dx_beside_gradients, dx));
    EXPECT_TRUE(at::allclose(y.to(at::kFloat), at::mm(x.to(at::kFloat), weights.to(at::kFloat).t()),
                             0.01, 0.05));
    EXPECT_TRUE(at::allclose(dx.to(at::kFloat), at::mm(dy.to(at::kFloat), weights.to(at::kFloat)),
                             0.01, 0.05));
    ASSERT_TRUE(
        quant::product_route(product_facts(group.layers(), x, true), quant::Pass::kForward).sums ||
        !quant::sums_products(quant::left_operand(x), 64, 0));
    if (!quant::sums_products(quant::left_operand(x), 64, 0)) continue;  // AMX: the library's alone
    const at::Tensor own_y = at::empty_like(y), own_dx = at::empty_like(dx);
    quant::multiply_summed(x, {{weights.t(), {.out = own_y, .accumulate = false}}});
    quant::multiply_summed(dy, {{weights, {.out = own_dx, .accumulate = false}}});
    EXPECT_TRUE(at::equal(y, own_y)) << rows;
    EXPECT_TRUE(at::equal(dx, own_dx)) << rows;
  }
}

}  // namespace
}  // namespace qlora::lora
