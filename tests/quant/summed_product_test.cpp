#include "quant/summed_product.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/error.h"

namespace qlora::quant {
namespace {

class SummedProducts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!sums_products(at::zeros({64, 2}, at::kBFloat16), 2, 2))
      GTEST_SKIP() << "no AVX-512 BF16 on this machine";
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
            a, {{.b = b, .out = out, .accumulate = accumulate, .h = h, .c = c, .scale = 1.75}});
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

TEST_F(SummedProducts, ProductsOfOneInputGoWhereTheirColumnsLie) {
  const at::Tensor a = random(70, 64), all = at::full({70, 200}, 7.0f).to(at::kBFloat16);
  const at::Tensor b1 = random(64, 60), b2 = random(64, 100), h = random(70, 16);
  const at::Tensor c2 = random(4, 100);
  at::Tensor first = all.narrow(1, 10, 60), second = all.narrow(1, 90, 100);
  multiply_summed(a, {{.b = b1, .out = first, .accumulate = false, .h = {}, .c = {}},
                      {.b = b2,
                       .out = second,
                       .accumulate = false,
                       .h = h.narrow(1, 8, 4),
                       .c = c2,
                       .scale = 0.5}});
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
    multiply_summed(a, {{.b = b, .out = out, .accumulate = false, .h = h, .c = c, .scale = 3.0}});
    results.push_back(out);
    EXPECT_TRUE(at::equal(out, results.front())) << threads << " threads";
  }
  set_num_threads(0);
}

TEST_F(SummedProducts, FewRowsOddRanksAndOtherTypesGoElsewhere) {
  EXPECT_FALSE(sums_products(random(31, 8), 8, 4));
  EXPECT_FALSE(sums_products(random(64, 8), 8, 3));
  EXPECT_FALSE(sums_products(random(64, 7), 7, 4));
  EXPECT_FALSE(sums_products(at::zeros({64, 8}), 8, 4));
}

TEST_F(SummedProducts, ShapesThatDoNotFitAreRefused) {
  at::Tensor out = at::empty({64, 10}, at::kBFloat16);
  EXPECT_THROW(
      multiply_summed(random(64, 8),
                      {{.b = random(6, 10), .out = out, .accumulate = false, .h = {}, .c = {}}}),
      Error);
  EXPECT_THROW(multiply_summed(random(64, 8), {{.b = random(8, 10),
                                                .out = out,
                                                .accumulate = false,
                                                .h = random(64, 4),
                                                .c = random(2, 10)}}),
               Error);
}

}  // namespace
}  // namespace qlora::quant
