#include "quant/products/summed_product.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/device.h"
#include "base/error.h"

namespace qlora::quant {
namespace {

class SummedProducts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!machine_sums_bfloat16()) GTEST_SKIP() << "no AVX-512 BF16 on this machine";
    at::manual_seed(1);
  }
};

at::Tensor random(int64_t rows, int64_t columns) {
  return at::randn({rows, columns}).to(at::kBFloat16);
}

at::Tensor wide(const at::Tensor& t) { return t.to(at::kDouble); }

// Rounded once: half a step of bf16 (at most 2^-8 of the result), and what fp32 sums of up to some
// thousand terms of size |a||b| lose.
void expect_rounded_once(const at::Tensor& found, const at::Tensor& exact,
                         const at::Tensor& magnitude) {
  const at::Tensor bound = exact.abs() / 256 + magnitude * 2e-6;
  EXPECT_TRUE(((wide(found) - exact).abs() <= bound).all().item<bool>())
      << (wide(found) - exact).abs().max().item<double>();
}

struct Shape {
  int64_t m, k, n, r;
};
// Whole tiles; a rest of rows, of columns, of pairs; a single column; a long sum.
const Shape kShapes[] = {
    {64, 32, 48, 16}, {33, 576, 100, 2}, {131, 30, 577, 8}, {64, 2, 1, 4}, {40, 5000, 50, 64}};

TEST_F(SummedProducts, TheSumIsRoundedOnce) {
  for (const Shape& s : kShapes) {
    for (const bool transposed : {false, true}) {
      for (const bool accumulate : {false, true}) {
        const at::Tensor a = random(s.m, s.k), h = random(s.m, s.r), before = random(s.m, s.n);
        const at::Tensor b = transposed ? random(s.n, s.k).t() : random(s.k, s.n);
        const at::Tensor c = transposed ? random(s.r, s.n) : random(s.n, s.r).t();
        at::Tensor out = before.clone();
        multiply_summed(
            a, {{b, {.out = out, .accumulate = accumulate, .h = h, .c = c, .scale = 1.75}}});
        at::Tensor exact = at::mm(wide(a), wide(b)) + 1.75 * at::mm(wide(h), wide(c));
        at::Tensor magnitude =
            at::mm(wide(a).abs(), wide(b).abs()) + 1.75 * at::mm(wide(h).abs(), wide(c).abs());
        if (accumulate) {
          exact += wide(before);
          magnitude += wide(before).abs();
        }
        expect_rounded_once(out, exact, magnitude);
      }
    }
  }
}

// Σ codes_x codes_w scaled, and the outlier columns in bf16, in float64 (quant/int8/int8.h).
at::Tensor int8_product(const at::Tensor& x, const Int8Tensor& w, double threshold,
                        at::Tensor& magnitude) {
  const Int8Activation input = quantize_int8_activation(x, threshold);
  const auto scaled = [](const Int8Tensor& t) {
    return wide(t.codes) * wide(t.absmax).unsqueeze(1) * std::sqrt(6.200124e-05);
  };
  at::Tensor dense = at::empty(w.codes.sizes(), at::kBFloat16);
  dequantize_int8(w, 0, w.codes.size(0), dense);
  const auto outliers = [&](const at::Tensor& t) {
    return wide(t.index_select(1, input.outliers));
  };
  magnitude = at::mm(scaled(input.rows).abs(), scaled(w).t().abs()) +
              at::mm(outliers(x).abs(), outliers(dense).t().abs());
  return at::mm(scaled(input.rows), scaled(w).t()) + at::mm(outliers(x), outliers(dense).t());
}

TEST_F(SummedProducts, OfLlmInt8TheyAreRoundedOnceToo) {
  for (const Shape& s : kShapes) {
    const int64_t k = (s.k + 3) / 4 * 4;
    for (const int64_t num_outliers : {0, 1, 6}) {
      at::Tensor x = random(s.m, k), h = random(s.m, s.r), c = random(s.n, s.r).t(),
                 before = random(s.m, s.n);
      for (int64_t i = 0; i < std::min(num_outliers, k); ++i)
        x[(7 * i) % s.m][(11 * i) % k] = 6.5 + static_cast<double>(i);
      const Int8Tensor w = quantize_int8(random(s.n, k));
      for (const bool accumulate : {false, true}) {
        at::Tensor out = before.clone(), magnitude;
        multiply_summed_int8(
            x, 6.0, {{w, {.out = out, .accumulate = accumulate, .h = h, .c = c, .scale = 1.75}}});
        at::Tensor exact = int8_product(x, w, 6.0, magnitude) + 1.75 * at::mm(wide(h), wide(c));
        magnitude += 1.75 * at::mm(wide(h).abs(), wide(c).abs());
        if (accumulate) {
          exact += wide(before);
          magnitude += wide(before).abs();
        }
        expect_rounded_once(out, exact, magnitude);
      }
    }
  }
}

TEST_F(SummedProducts, OntoAResidualNothingIsRoundedToBfloat16) {
  for (const Shape& s : kShapes) {
    const int64_t k = (s.k + 3) / 4 * 4;
    const at::Tensor x = random(s.m, k), h = random(s.m, s.r), c = random(s.r, s.n);
    const at::Tensor b = random(s.n, k), residual = at::randn({s.m, s.n}) * 1000;
    at::Tensor out = at::empty_like(residual), in_int8 = at::empty_like(residual), magnitude;
    const auto target = [&](const at::Tensor& to) {
      return SumTarget{
          .out = to, .accumulate = false, .h = h, .c = c, .scale = 1.75, .onto = residual};
    };
    const at::Tensor term = 1.75 * at::mm(wide(h), wide(c)) + wide(residual);
    const auto expect_fp32 = [&](const at::Tensor& found, const at::Tensor& exact,
                                 const at::Tensor& size) {
      // Half a step of fp32 at the residual, and what sums of up to some thousand terms lose.
      const at::Tensor bound = exact.abs() * 6e-8 + size * 2e-6;
      EXPECT_TRUE(((wide(found) - exact).abs() <= bound).all().item<bool>())
          << (wide(found) - exact).abs().max().item<double>();
    };
    const at::Tensor term_size = 1.75 * at::mm(wide(h).abs(), wide(c).abs());
    multiply_summed(x, {{b.t(), target(out)}});
    expect_fp32(out, at::mm(wide(x), wide(b).t()) + term,
                at::mm(wide(x).abs(), wide(b).t().abs()) + term_size);
    const Int8Tensor w = quantize_int8(b);
    multiply_summed_int8(x, 3.0, {{w, target(in_int8)}});
    const at::Tensor product = int8_product(x, w, 3.0, magnitude);
    expect_fp32(in_int8, product + term, magnitude + term_size);
  }
}

TEST_F(SummedProducts, OfLlmInt8WithoutTermsAreTheProductOfInt8Linear) {
  const at::Tensor x = random(70, 64);
  const Int8Tensor first = quantize_int8(random(60, 64)), second = quantize_int8(random(100, 64));
  const at::Tensor all = at::empty({70, 160}, at::kBFloat16);
  multiply_summed_int8(
      x, 0.0,
      {{first, {.out = all.narrow(1, 0, 60), .accumulate = false, .h = {}, .c = {}}},
       {second, {.out = all.narrow(1, 60, 100), .accumulate = false, .h = {}, .c = {}}}});
  EXPECT_TRUE(at::equal(all.narrow(1, 0, 60), int8_linear(x, first, 0.0)));
  EXPECT_TRUE(at::equal(all.narrow(1, 60, 100), int8_linear(x, second, 0.0)));
}

TEST_F(SummedProducts, ProductsOfOneInputGoWhereTheirColumnsLie) {
  const at::Tensor a = random(70, 64), all = at::full({70, 200}, 7.0f).to(at::kBFloat16);
  const at::Tensor b1 = random(64, 60), b2 = random(64, 100), h = random(70, 16);
  const at::Tensor c2 = random(4, 100);
  at::Tensor first = all.narrow(1, 10, 60), second = all.narrow(1, 90, 100);
  multiply_summed(
      a,
      {{b1, {.out = first, .accumulate = false, .h = {}, .c = {}}},
       {b2, {.out = second, .accumulate = false, .h = h.narrow(1, 8, 4), .c = c2, .scale = 0.5}}});
  const at::Tensor exact =
      at::mm(wide(a), wide(b2)) + 0.5 * at::mm(wide(h.narrow(1, 8, 4)), wide(c2));
  expect_rounded_once(first, at::mm(wide(a), wide(b1)), at::mm(wide(a).abs(), wide(b1).abs()));
  expect_rounded_once(second, exact, at::mm(wide(a).abs(), wide(b2).abs()) + 8);
  for (const auto& [begin, width] : {std::pair{0, 10}, {70, 20}, {190, 10}})
    EXPECT_TRUE((all.narrow(1, begin, width) == 7).all().item<bool>()) << "columns from " << begin;
}

TEST_F(SummedProducts, BitsDoNotDependOnTheThreads) {
  const at::Tensor a = random(200, 96), b = random(96, 300), h = random(200, 16),
                   c = random(16, 300);
  std::vector<at::Tensor> results;
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    at::Tensor out = at::empty({200, 300}, at::kBFloat16);
    multiply_summed(a, {{b, {.out = out, .accumulate = false, .h = h, .c = c, .scale = 3.0}}});
    results.push_back(out);
    EXPECT_TRUE(at::equal(out, results.front())) << threads << " threads";
  }
  set_num_threads(0);
}

TEST_F(SummedProducts, FewRowsAndOddRanksGoElsewhere) {
  const LeftOperand few{.rows = 8}, many{.rows = 9};
  EXPECT_TRUE(sums_products(many, 8, 4));
  EXPECT_FALSE(sums_products(few, 8, 4));
  EXPECT_FALSE(sums_products(many, 8, 3));
  EXPECT_FALSE(sums_products(many, 7, 4));
  EXPECT_TRUE(sums_int8_products(many, 8, 4));
  EXPECT_FALSE(sums_int8_products(many, 6, 4));
  EXPECT_FALSE(sums_int8_products(many, 65540, 4));  // int32 would not hold its sums
}

TEST_F(SummedProducts, ShapesThatDoNotFitAreRefused) {
  at::Tensor out = at::empty({64, 10}, at::kBFloat16);
  EXPECT_THROW(
      multiply_summed(random(64, 8),
                      {{random(6, 10), {.out = out, .accumulate = false, .h = {}, .c = {}}}}),
      Error);
  EXPECT_THROW(multiply_summed(
                   random(64, 8),
                   {{random(8, 10),
                     {.out = out, .accumulate = false, .h = random(64, 4), .c = random(2, 10)}}}),
               Error);
}

}  // namespace
}  // namespace qlora::quant
