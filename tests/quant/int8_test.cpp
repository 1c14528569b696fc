#include "quant/int8/int8.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "quant/formats/int8_weight.h"
#include "quant/products/product.h"

namespace qlora::quant {
namespace {

at::Tensor normal(int64_t rows, int64_t columns, at::ScalarType dtype = at::kFloat) {
  return at::randn({rows, columns}).to(dtype);
}

// The definition in double precision on fp16-rounded input.
at::Tensor reference_codes(const at::Tensor& x) {
  const at::Tensor half = x.to(at::kHalf).to(at::kFloat);
  const at::Tensor absmax = half.abs().amax({1}, true);
  return at::round(half * (at::reciprocal(absmax) * 127.0f)).to(at::kChar);
}

TEST(Int8, CodesAreTheRowsNearestIntegersOf127ByAbsmax) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor weight = normal(37, 83, dtype);
    const Int8Tensor q = quantize_int8(weight);
    EXPECT_TRUE(at::equal(q.codes, reference_codes(weight)));
    EXPECT_TRUE(at::equal(q.absmax, weight.to(at::kHalf).to(at::kFloat).abs().amax({1})));
  }
}

TEST(Int8, DequantizedIsWithinHalfAStepOfTheWeight) {
  const at::Tensor weight = normal(64, 200).to(at::kHalf).to(at::kFloat);
  const Int8Tensor q = quantize_int8(weight);
  at::Tensor restored = at::empty_like(weight);
  dequantize_int8(q, 0, 64, restored);
  const at::Tensor step = q.absmax.unsqueeze(1) / 127.0;
  EXPECT_TRUE((at::abs(restored - weight) <= 0.5001 * step).all().item<bool>());
  at::Tensor part = at::empty({3, 200}, at::kBFloat16);
  dequantize_int8(q, 5, 8, part);
  EXPECT_TRUE(at::equal(part, restored.narrow(0, 5, 3).to(at::kBFloat16)));
}

TEST(Int8, ARowOfZerosStaysZero) {
  at::Tensor weight = normal(4, 64);
  weight[2].zero_();
  const Int8Tensor q = quantize_int8(weight);
  EXPECT_EQ(q.absmax[2].item<float>(), 0.0f);
  EXPECT_EQ(q.codes[2].abs().max().item<int8_t>(), 0);
  const at::Tensor y = int8_linear(at::zeros({3, 64}), q, 6.0);
  EXPECT_TRUE(at::equal(y, at::zeros({3, 4})));
}

TEST(Int8, OutlierColumnsLeaveTheCodesAndTheScale) {
  at::Tensor x = normal(20, 96).clamp(-3, 3);
  x[4][17] = 60.0f;
  x[9][40] = -6.0f;  // reaching the threshold counts
  const Int8Activation q = quantize_int8_activation(x, 6.0);
  EXPECT_TRUE(at::equal(q.outliers, at::tensor({17, 40}, at::kLong)));
  EXPECT_EQ(q.rows.codes.index_select(1, q.outliers).abs().max().item<int8_t>(), 0);
  EXPECT_LE(q.rows.absmax.max().item<float>(), 3.0f);
  EXPECT_EQ(quantize_int8_activation(x, 0.0).outliers.numel(), 0);
  EXPECT_EQ(quantize_int8_activation(x, 0.0).rows.absmax[4].item<float>(), 60.0f);
}

TEST(Int8, TheProductIsTheFormula) {
  const at::Tensor weight = normal(48, 128), x = normal(24, 128) * 2.0;
  const Int8Tensor w = quantize_int8(weight);
  for (const double threshold : {0.0, 3.0}) {
    const Int8Activation q = quantize_int8_activation(x, threshold);
    at::Tensor y = q.rows.codes.to(at::kDouble).mm(w.codes.to(at::kDouble).t()) *
                   q.rows.absmax.unsqueeze(1) * w.absmax / 16129.0;
    at::Tensor dense = at::empty({48, 128}, at::kFloat);
    dequantize_int8(w, 0, 48, dense);
    y += x.index_select(1, q.outliers)
             .to(at::kDouble)
             .mm(dense.index_select(1, q.outliers).to(at::kDouble).t());
    EXPECT_EQ(threshold > 0, q.outliers.numel() > 0);
    // The constant for 1/127² is bitsandbytes': 1.8e-5 too large.
    EXPECT_LT((int8_linear(x, w, threshold) - y).abs().max().item<double>(),
              3e-5 * y.abs().max().item<double>());
  }
}

TEST(Int8, OutliersInSixteenBitComeCloserToTheExactProduct) {
  const at::Tensor weight = normal(64, 256);
  at::Tensor x = normal(32, 256);
  x.select(1, 100).mul_(40.0);  // one feature dwarfs the others, as in large transformers
  const at::Tensor exact = x.mm(weight.t());
  const Int8Tensor w = quantize_int8(weight);
  const auto error = [&](double threshold) {
    return ((int8_linear(x, w, threshold) - exact).norm() / exact.norm()).item<double>();
  };
  EXPECT_LT(error(6.0), 0.5 * error(0.0));
}

TEST(Int8, LargeActivationsSaturateAndNaNReachesTheOutput) {
  const Int8Tensor w = quantize_int8(normal(16, 32));
  at::Tensor x = normal(8, 32).to(at::kBFloat16);
  x[1][3] = 1e30f;
  EXPECT_TRUE(at::isfinite(int8_linear(x, w, 0.0)).all().item<bool>());
  x[2][5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(at::isnan(int8_linear(x, w, 0.0)[2]).all().item<bool>());
  EXPECT_FALSE(at::isnan(int8_linear(x, w, 0.0)[0]).any().item<bool>());
}

TEST(Int8, ABadWeightIsRefusedByItsRow) {
  at::Tensor weight = normal(8, 16);
  weight[5][2] = 70000.0f;  // beyond fp16
  try {
    quantize_int8(weight);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("row 5"), std::string::npos) << error.what();
  }
}

TEST(Int8Weight, ItsInputGradientIsThatOfTheDequantizedWeight) {
  const at::Tensor weight = normal(24, 40);
  const Int8Weight frozen(quantize_int8(weight), {});
  at::Tensor dense = at::empty({24, 40}, at::kFloat);
  frozen.dequantize_rows(0, 0, 24, dense);
  Workspace workspace;
  const at::Tensor dy = normal(10, 24);
  at::Tensor dx = at::empty({10, 40}, at::kFloat);
  frozen.input_gradient_into(dy, dx, false, workspace);
  EXPECT_TRUE(at::allclose(dx, dy.mm(dense), 1e-5, 1e-6));
}

TEST(Int8Weight, WeightOnlyMultipliesTheDequantizedWeight) {
  const at::Tensor x = normal(kFewRows + 1, 40);
  const Int8Weight frozen(quantize_int8(normal(24, 40)), {.weight_only = true});
  at::Tensor dense = at::empty({24, 40}, at::kFloat);
  frozen.dequantize_rows(0, 0, 24, dense);
  Workspace workspace;
  EXPECT_TRUE(at::equal(frozen.forward(x, workspace, 0), product(x, dense.t())));
}

class Int8Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

// Rows of 83 and 84 columns begin anywhere, those of 72 and 2304 at multiples of what is read at
// once.
TEST_F(Int8Gpu, RowsHaveTheBitsOfTheCpu) {
  for (const int64_t columns : {72, 83, 84, 2304})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const Int8Tensor host = quantize_int8(normal(37, columns)),
                       device{host.codes.cuda(), host.absmax.cuda()};
      at::Tensor expected = at::empty({30, columns}, dtype), found = expected.cuda();
      dequantize_int8(host, 5, 35, expected);
      dequantize_int8(device, 5, 35, found);
      EXPECT_TRUE(at::equal(found.cpu(), expected)) << columns << " " << c10::toString(dtype);
    }
}

// The rounding of 1 / 127² is the device's.
TEST_F(Int8Gpu, ProductsAreTheIntegersTimesBothScales) {
  for (const int64_t out : {40, 1096})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor x = normal(33, 64, dtype).cuda();
      const Int8Tensor weight = quantize_int8(normal(out, 64).cuda());
      const Int8Activation input = quantize_int8_activation(x, 0);
      const at::Tensor integers =
          at::matmul(input.rows.codes.to(at::kDouble), weight.codes.to(at::kDouble).t());
      const at::Tensor scales = input.rows.absmax.unsqueeze(1) * weight.absmax;
      const at::Tensor expected = ((integers.to(at::kFloat) * scales) * 6.200012e-05f).to(dtype);
      EXPECT_TRUE(at::equal(int8_linear(x, weight, 0), expected))
          << out << " " << c10::toString(dtype);
    }
}

}  // namespace
}  // namespace qlora::quant
