// Products of LLM.int8()'s codes: their integers are exact on every instruction set, and what is
// made of them is rounded as the formula of quant/int8/int8.h says.
#include "quant/products/code_product_kernels.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/instruction_set.h"
#include "quant/products/summed_product.h"

namespace qlora::quant {
namespace {

constexpr InstructionSet kSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                    InstructionSet::kAvx512};

at::Tensor random_codes(int64_t rows, int64_t columns) {
  return at::randint(-127, 128, {rows, columns}, at::kLong).to(at::kChar);
}

Int8Tensor random_weight(int64_t rows, int64_t columns) {
  return {random_codes(rows, columns), at::rand({rows}) + 0.5};
}

cpu::Int8Rows rows_of(const Int8Tensor& t) {
  return {t.codes.const_data_ptr<int8_t>(), t.codes.stride(0), t.absmax.const_data_ptr<float>()};
}

// Each step in fp32; of the integers, which doubles hold, in one rounding.
at::Tensor numbers(const Int8Tensor& a, const Int8Tensor& b) {
  const at::Tensor integers = at::mm(a.codes.to(at::kDouble), b.codes.to(at::kDouble).t());
  return integers.to(at::kFloat) * (a.absmax.unsqueeze(1) * b.absmax) * cpu::kOne127Squared;
}

// Rows from `row` on and columns from `column` on.
at::Tensor multiplied(const cpu::CodeProduct& kernel, const Int8Tensor& a, const Int8Tensor& b,
                      int64_t row, int64_t column, const at::Tensor& onto) {
  const int64_t rows = a.codes.size(0) - row, columns = b.codes.size(0) - column;
  const cpu::LaidOutCodes codes =
      cpu::lay_out_codes(kernel, rows_of(a), a.codes.size(0), a.codes.size(1));
  at::Tensor sums = at::full({rows, (columns + 15) / 16 * 16}, 7.0f);
  if (onto.defined()) sums.narrow(1, 0, columns).copy_(onto);
  const cpu::Int8Rows from = rows_of(b);
  kernel.multiply({.a = &codes,
                   .row = row,
                   .rows = rows,
                   .b = {from.codes + column * from.stride, from.stride, from.absmax + column},
                   .columns = columns,
                   .accumulate = onto.defined(),
                   .sums = sums.mutable_data_ptr<float>(),
                   .stride = sums.size(1)});
  return sums.narrow(1, 0, columns).contiguous();
}

struct Shape {
  int64_t m, k, n;
};
// Whole tiles, panels and words; rests of each; few rows; single elements; long sums.
const Shape kShapes[] = {{48, 128, 96}, {9, 5, 17},  {1, 1, 1},   {13, 577, 50},
                         {70, 66, 101}, {3, 131, 7}, {8, 64, 48}, {17, 2049, 33}};

TEST(CodeProducts, EveryKernelGivesTheSameBits) {
  at::manual_seed(1);
  for (const cpu::CodeProduct& kernel : cpu::code_products()) {
    if (!kernel.supported()) continue;
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(fmt::format("{}: {} x {} x {}", kernel.name, s.m, s.k, s.n));
      const Int8Tensor a = random_weight(s.m, s.k), b = random_weight(s.n, s.k);
      const at::Tensor expected = numbers(a, b), onto = at::randn({s.m, s.n});
      EXPECT_TRUE(at::equal(multiplied(kernel, a, b, 0, 0, {}), expected));
      EXPECT_TRUE(at::equal(multiplied(kernel, a, b, 0, 0, onto), onto + expected));
      const int64_t row = s.m / 3, column = s.n / 3;
      EXPECT_TRUE(at::equal(multiplied(kernel, a, b, row, column, {}),
                            expected.narrow(0, row, s.m - row).narrow(1, column, s.n - column)));
    }
  }
}

// What saturates at 16 bits, or leaves them, does not here.
TEST(CodeProducts, TheLargestCodesAreMultipliedExactly) {
  for (const cpu::CodeProduct& kernel : cpu::code_products()) {
    if (!kernel.supported()) continue;
    for (const int64_t k : {7L, 64L, cpu::kMostCodes})
      for (const int of_a : {-127, 127})
        for (const int of_b : {-128, -127, 127}) {
          SCOPED_TRACE(fmt::format("{}: {} times {} {}", kernel.name, k, of_a, of_b));
          for (const int64_t rows : {2, 12}) {
            const Int8Tensor a{at::full({rows, k}, of_a, at::kChar), at::ones({rows})};
            const Int8Tensor b{at::full({3, k}, of_b, at::kChar), at::ones({3})};
            EXPECT_TRUE(at::equal(multiplied(kernel, a, b, 0, 0, {}), numbers(a, b)));
          }
        }
  }
}

TEST(CodeProducts, Int8LinearHasTheSameBitsOnEveryInstructionSetAndAnyNumberOfThreads) {
  at::manual_seed(2);
  const Int8Tensor weight = quantize_int8(at::randn({101, 130}));
  for (const int64_t rows : {1, 8, 70}) {
    const at::Tensor x = at::randn({rows, 130});
    const at::Tensor expected = numbers(quantize_int8_activation(x, 0.0).rows, weight);
    for (const InstructionSet set : kSets)
      for (const int threads : {1, 2, 5}) {
        const AtMost most(set);
        set_num_threads(threads);
        EXPECT_TRUE(at::equal(int8_linear(x, weight, 0.0), expected))
            << to_string(set) << ", " << rows << " rows, " << threads << " threads";
      }
  }
  set_num_threads(0);
}

at::Tensor wide(const at::Tensor& t) { return t.to(at::kDouble); }

TEST(CodeProducts, OutliersAnAdapterAndAResidualAreInOneSum) {
  at::manual_seed(3);
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      for (const int64_t num_outliers : {0, 1, 5}) {
        if (!multiplies_in_float(at::kCPU, dtype)) continue;
        at::Tensor x = at::randn({40, 99}).clamp(-5, 5).to(dtype);
        for (int64_t i = 0; i < num_outliers; ++i) x[7 * i][11 * i] = 8.0 + static_cast<double>(i);
        const Int8Tensor w = quantize_int8(at::randn({70, 99}));
        const at::Tensor h = at::randn({40, 3}).to(dtype), up = at::randn({70, 3}).to(dtype);
        const at::Tensor onto = at::randn({40, 70}) * 50;
        ASSERT_TRUE(sums_int8_products(left_operand(x), 99, 3));
        at::Tensor out = at::empty({40, 70});
        multiply_summed_int8(
            x, 6.0,
            {{w,
              {.out = out, .accumulate = false, .h = h, .c = up.t(), .scale = 2.5, .onto = onto}}});
        const Int8Activation input = quantize_int8_activation(x, 6.0);
        ASSERT_EQ(input.outliers.numel(), num_outliers);
        at::Tensor dense = at::empty({70, 99}, dtype);
        dequantize_int8(w, 0, 70, dense);
        const at::Tensor columns = wide(x.index_select(1, input.outliers)),
                         rows = wide(dense.index_select(1, input.outliers));
        const at::Tensor exact = wide(onto) + 2.5 * at::mm(wide(h), wide(up).t()) +
                                 wide(numbers(input.rows, w)) + at::mm(columns, rows.t());
        // Sums of fp32 of some hundred terms.
        const at::Tensor bound =
            exact.abs() * 6e-8 + 2e-6 * (wide(x).abs().sum(1, true) + h.abs().sum() + 50);
        EXPECT_TRUE(((wide(out) - exact).abs() <= bound).all().item<bool>())
            << to_string(set) << " " << (wide(out) - exact).abs().max().item<double>();
      }
  }
}

}  // namespace
}  // namespace qlora::quant
