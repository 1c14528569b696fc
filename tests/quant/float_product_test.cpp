#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/products/product.h"
#include "quant/products/summed_product.h"

namespace qlora::quant {
namespace {

constexpr InstructionSet kSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                    InstructionSet::kAvx512};

at::Tensor wide(const at::Tensor& t) { return t.to(at::kDouble); }

// An fp32 sum of k terms of size |a||b| loses at most k steps of 2^-24, at random about sqrt(k);
// and `out` is rounded once, by half a step of its own type.
void expect_summed_in_float(const at::Tensor& out, const at::Tensor& exact,
                            const at::Tensor& magnitude) {
  const double step = out.scalar_type() == at::kFloat      ? 1.0 / (1 << 24)
                      : out.scalar_type() == at::kBFloat16 ? 1.0 / (1 << 8)
                                                           : 1.0 / (1 << 11);
  const at::Tensor bound = exact.abs() * step * 1.01 + magnitude * 2e-6 + 1e-7;
  EXPECT_TRUE(((wide(out) - exact).abs() <= bound).all().item<bool>())
      << (wide(out) - exact).abs().max().item<double>();
}

struct Shape {
  int64_t m, k, n;
};
// Whole tiles and panels; a rest of each; single rows and columns; more terms than a block, more
// rows than are summed at once, more columns than are packed at once.
const Shape kShapes[] = {{48, 64, 96},   {1, 3, 1},    {7, 257, 33},
                         {65, 600, 241}, {1100, 9, 5}, {3, 1, 500}};

TEST(FloatProducts, FactorsOfAnyTypesAndOrdersGiveTheirProductRoundedOnce) {
  at::manual_seed(1);
  const at::ScalarType types[] = {at::kFloat, at::kBFloat16, at::kHalf};
  int turn = 0;
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const Shape& s : kShapes)
      for (int order = 0; order < 4; ++order, ++turn) {
        const at::ScalarType left = types[turn % 3], right = types[turn / 3 % 3];
        at::Tensor a =
            order % 2 ? at::randn({s.k, s.m}).to(left).t() : at::randn({s.m, s.k}).to(left);
        at::Tensor b =
            order / 2 ? at::randn({s.n, s.k}).to(right).t() : at::randn({s.k, s.n}).to(right);
        if (!multiplies_in_float(a)) a = a.to(at::kFloat);
        at::Tensor out = at::empty({s.m, s.n}, a.options());
        multiply_into(a, b, false, out, 0.75);
        expect_summed_in_float(out, 0.75 * at::mm(wide(a), wide(b)),
                               at::mm(wide(a).abs(), wide(b).abs()));
      }
  }
}

// The library's products of 16-bit factors are added some rows at a time. Whole numbers make them
// exact.
TEST(FloatProducts, ManyRowsOf16BitFactorsAreAddedToFloat32Once) {
  for (const int64_t rows : {4095, 4096, 4097, 9000}) {
    const at::Tensor a =
        at::arange(3 * rows, at::kFloat).remainder(5).view({3, rows}).to(at::kBFloat16).t();
    const at::Tensor b = at::arange(3 * 8, at::kFloat).remainder(7).view({3, 8}).to(at::kBFloat16);
    const at::Tensor exact = at::mm(a.to(at::kFloat), b.to(at::kFloat));
    at::Tensor out = at::full({rows, 8}, 0.5, at::kFloat);
    multiply_into(a, b, true, out, 2.0);
    EXPECT_TRUE(at::equal(out, exact * 2 + 0.5)) << rows;
    multiply_into(a, b, false, out);
    EXPECT_TRUE(at::equal(out, exact)) << rows;
  }
}

TEST(FloatProducts, ASumIsAddedToWhatIsThereInEitherOrder) {
  at::manual_seed(2);
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    const at::Tensor a = at::randn({20, 70}), b = at::randn({70, 50});
    for (const bool transposed : {false, true}) {
      const at::Tensor before = transposed ? at::randn({50, 20}).t() : at::randn({20, 50});
      at::Tensor out = before.clone();
      ASSERT_EQ(out.stride(0) == 1, transposed);
      multiply_into(a, b, true, out);
      expect_summed_in_float(out, wide(before) + at::mm(wide(a), wide(b)),
                             at::mm(wide(a).abs(), wide(b).abs()));
    }
  }
}

TEST(FloatProducts, RowsThatLieAPageApartAreTakenAsAnyOthers) {
  at::manual_seed(3);
  const at::Tensor a = at::randn({50, 2048}).narrow(1, 100, 300), b = at::randn({300, 40});
  at::Tensor out = at::empty({50, 40});
  multiply_into(a, b, false, out);
  expect_summed_in_float(out, at::mm(wide(a), wide(b)), at::mm(wide(a).abs(), wide(b).abs()));
}

TEST(FloatProducts, NoColumnBesideTheOutputIsWritten) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    at::Tensor all = at::full({9, 40}, 7.0);
    multiply_into(at::ones({9, 4}), at::ones({4, 21}), false, all.narrow(1, 3, 21));
    EXPECT_TRUE((all.narrow(1, 3, 21) == 4).all().item<bool>());
    EXPECT_TRUE((all.narrow(1, 0, 3) == 7).all().item<bool>());
    EXPECT_TRUE((all.narrow(1, 24, 16) == 7).all().item<bool>());
  }
}

TEST(FloatProducts, Avx2AndAvx512GiveTheSameBitsOnAnyNumberOfThreads) {
  at::manual_seed(4);
  const at::Tensor a = at::randn({130, 700}), b = at::randn({700, 333});
  std::vector<at::Tensor> results;
  for (const InstructionSet set : {InstructionSet::kAvx2, InstructionSet::kAvx512})
    for (const int threads : {1, 2, 5}) {
      const AtMost most(set);
      set_num_threads(threads);
      results.push_back(at::empty({130, 333}));
      multiply_into(a, b, false, results.back());
      EXPECT_TRUE(at::equal(results.back(), results.front())) << threads << " threads";
    }
  set_num_threads(0);
}

TEST(FloatProducts, AnAdapterAndAResidualAreInOneSum) {
  at::manual_seed(5);
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    const at::Tensor x = at::randn({40, 96}), weight = at::randn({70, 96}).to(at::kBFloat16);
    const at::Tensor h = at::randn({40, 3}), up = at::randn({70, 3}),
                     onto = at::randn({40, 70}) * 50;
    ASSERT_TRUE(sums_products(left_operand(x), 96, 3));
    at::Tensor out = at::empty({40, 70});
    multiply_summed(
        x, {{weight.t(),
             {.out = out, .accumulate = false, .h = h, .c = up.t(), .scale = 2.5, .onto = onto}}});
    const at::Tensor exact =
        wide(onto) + 2.5 * at::mm(wide(h), wide(up).t()) + at::mm(wide(x), wide(weight).t());
    expect_summed_in_float(out, exact, at::mm(wide(x).abs(), wide(weight).abs().t()));
  }
}

TEST(FloatProducts, AProductWithoutTermsIsZero) {
  at::Tensor out = at::full({20, 30}, 7.0);
  multiply_into(at::ones({20, 5}), at::ones({5, 30}), false, out);  // leaves sums behind
  multiply_into(at::empty({20, 0}), at::empty({0, 30}), false, out);
  EXPECT_TRUE((out == 0).all().item<bool>());
  out.fill_(7.0);
  multiply_into(at::empty({20, 0}), at::empty({0, 30}), true, out);
  EXPECT_TRUE((out == 7).all().item<bool>());
}

TEST(FloatProducts, FactorsThatDoNotFitAreRefused) {
  at::Tensor out = at::empty({4, 5});
  EXPECT_THROW(multiply_into(at::ones({4, 6}), at::ones({7, 5}), false, out), Error);
  EXPECT_THROW(multiply_into(at::ones({4, 6}), at::ones({6, 4}), false, out), Error);
  EXPECT_THROW(multiply_into(at::ones({4, 6}),
                             at::ones({12, 10}).slice(0, 0, 12, 2).slice(1, 0, 10, 2), false, out),
               Error);
}

}  // namespace
}  // namespace qlora::quant
