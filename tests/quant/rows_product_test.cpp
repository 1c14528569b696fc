// Products of few rows. What they are held to: with n terms in fp32, in any order, a sum is off by
// at most (n + 1) u Σ |x w| with u = 2^-24 (n - 1 additions, a product, and what (1 + u)^n has
// beyond 1 + n u); its rounding to a result of u_y = 2^-8 (bf16) or 2^-11 (fp16) adds u_y |y|.
#include "quant/few_rows/rows_product.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <bit>

#include "base/device.h"
#include "base/error.h"
#include "quant/formats/four_bit_weight.h"
#include "quant/formats/gguf_weight.h"
#include "quant/formats/int8_weight.h"
#include "quant/nf4/nf4_product_kernels.h"
#include "tests/support/quant_golden.h"

namespace qlora::quant {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr ElementType kElements[] = {ElementType::kFloat32, ElementType::kBFloat16,
                                     ElementType::kFloat16};

at::Tensor normal(int64_t rows, int64_t columns, at::ScalarType dtype, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn({rows, columns}).to(dtype);
}

double unit_roundoff(at::ScalarType dtype) {
  if (dtype == at::kFloat) return 0.0;
  return dtype == at::kBFloat16 ? std::exp2(-8) : std::exp2(-11);
}

// Whether y = before + x wᵀ within the bound above; w, x exact in double.
void expect_product(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
                    const at::Tensor& before = at::zeros({})) {
  const at::Tensor xd = x.to(at::kDouble), wd = w.to(at::kDouble), b = before.to(at::kDouble);
  const at::Tensor exact = b + xd.mm(wd.t());
  const at::Tensor magnitude = b.abs() + xd.abs().mm(wd.abs().t());
  const auto terms = static_cast<double>(x.size(1) + 2);
  const at::Tensor bound =
      magnitude * (terms * std::exp2(-24)) + exact.abs() * unit_roundoff(y.scalar_type());
  const at::Tensor error = (y.to(at::kDouble) - exact).abs();
  EXPECT_TRUE(error.le(bound * 1.01).all().item<bool>())
      << "worst share of the bound: " << (error / bound).max().item<double>();
}

at::Tensor rows_of(const FrozenWeight& weight, int64_t expert, at::ScalarType dtype) {
  at::Tensor out = at::empty({weight.out_features(), weight.in_features()}, dtype);
  weight.dequantize_rows(expert, 0, weight.out_features(), out);
  return out;
}

cpu::FourBitRows kernel_rows(const FourBitTensor& q, int64_t in, ElementType rounding) {
  FourBitScales scales{};
  if (q.scales)
    scales = {nullptr,
              q.scales->codes.const_data_ptr<uint8_t>(),
              q.scales->nested_absmax.const_data_ptr<float>(),
              q.scales->map.const_data_ptr<float>(),
              q.scales->offset.const_data_ptr<float>(),
              std::countr_zero(static_cast<uint64_t>(q.scales->block_size))};
  else
    scales.absmax = q.absmax.const_data_ptr<float>();
  return {q.packed.const_data_ptr<uint8_t>(),
          scales,
          q.layout.code,
          q.layout.block_size,
          in,
          0,
          rounding};
}

at::ScalarType scalar_type(ElementType type) {
  if (type == ElementType::kFloat32) return at::kFloat;
  return type == ElementType::kBFloat16 ? at::kBFloat16 : at::kHalf;
}

// Rows [begin, end) times x, by one kernel: fp32 [tokens, end - begin].
at::Tensor product_of(const cpu::FourBitProduct& kernel, const cpu::FourBitRows& rows,
                      const at::Tensor& x, int64_t begin, int64_t end) {
  const at::Tensor from = x.to(scalar_type(kernel.type)).contiguous();
  at::Tensor laid_out = at::empty_like(from);
  const int64_t bytes = rows.in * element_size(kernel.type);
  for (int64_t t = 0; t < x.size(0); ++t)
    kernel.lay_out(static_cast<const char*>(from.const_data_ptr()) + t * bytes, rows.in,
                   static_cast<char*>(laid_out.mutable_data_ptr()) + t * bytes);
  at::Tensor sums = at::full({x.size(0), end - begin}, NAN);
  kernel.multiply(rows, laid_out.const_data_ptr(), x.size(0), begin, end,
                  sums.mutable_data_ptr<float>(), end - begin);
  return sums;
}

TEST(FourBitProduct, EveryKernelMultipliesTheDequantizedWeight) {
  constexpr int64_t kOut = 13;
  for (const cpu::FourBitProduct& kernel : cpu::four_bit_products()) {
    if (!kernel.supported()) continue;
    for (const FourBitCode code : {FourBitCode::kNf4, FourBitCode::kFp4})
      for (const bool double_quant : {false, true})
        for (const int64_t block_size : {32, 64, 128, 1024})
          for (const ElementType rounding : kElements) {
            if (kernel.only_bfloat16 && rounding != ElementType::kBFloat16) continue;
            SCOPED_TRACE(fmt::format("{} {} {} {}", kernel.name, static_cast<int>(code),
                                     double_quant, block_size));
            const int64_t in = block_size * (block_size > 64 ? 1 : 9);
            const FourBitTensor q = quantize_four_bit(normal(kOut, in, at::kFloat, 1) * 0.02,
                                                      {code, block_size}, double_quant);
            at::Tensor w = at::empty({kOut, in}, scalar_type(rounding));
            dequantize_range(q, 0, q.num_elements, w);
            const at::Tensor x = normal(5, in, scalar_type(kernel.type), 2);
            const cpu::FourBitRows rows = kernel_rows(q, in, rounding);
            for (const int64_t tokens : {1, 2, 3, 4, 5})
              expect_product(product_of(kernel, rows, x.narrow(0, 0, tokens), 0, kOut),
                             x.narrow(0, 0, tokens), w);
          }
  }
}

// Exponents of the scales over most of bf16's range: rounding is to nearest even everywhere.
TEST(FourBitProduct, WeightsAreRoundedAsDequantizationRoundsThem) {
  constexpr int64_t kIn = 64, kOut = 200;
  FourBitTensor q;
  q.layout = {FourBitCode::kNf4, kIn};
  q.num_elements = kIn * kOut;
  q.packed = at::arange(0, q.num_elements / 2).remainder(256).to(at::kByte);
  q.absmax = at::exp2(at::linspace(-100, 100, kOut)).contiguous();
  for (const ElementType rounding : {ElementType::kFloat32, ElementType::kBFloat16}) {
    at::Tensor w = at::empty({kOut, kIn}, scalar_type(rounding));
    dequantize_range(q, 0, q.num_elements, w);
    for (const cpu::FourBitProduct& kernel : cpu::four_bit_products()) {
      if (!kernel.supported() || (kernel.only_bfloat16 && rounding != ElementType::kBFloat16))
        continue;
      SCOPED_TRACE(kernel.name);
      // With one element of x not zero, a sum is that column of the weight, exactly.
      for (const int64_t column : {0, 1, 2, 3, 7, 8, 30, 31, 32, 63}) {
        at::Tensor x = at::zeros({1, kIn}, scalar_type(kernel.type));
        x[0][column] = 1;
        EXPECT_TRUE(at::equal(product_of(kernel, kernel_rows(q, kIn, rounding), x, 0, kOut)[0],
                              w.select(1, column).to(at::kFloat)))
            << "column " << column;
      }
    }
  }
}

TEST(FourBitProduct, NoSumDependsOnTheRowsBesideItOrOnOtherRowsOfX) {
  constexpr int64_t kIn = 64 * 9, kOut = 11;
  const FourBitTensor q =
      quantize_four_bit(normal(kOut, kIn, at::kBFloat16, 3), {FourBitCode::kNf4, 64}, true);
  const at::Tensor x = normal(4, kIn, at::kBFloat16, 4);
  for (const cpu::FourBitProduct& kernel : cpu::four_bit_products()) {
    if (!kernel.supported()) continue;
    const cpu::FourBitRows rows = kernel_rows(q, kIn, ElementType::kBFloat16);
    const at::Tensor all = product_of(kernel, rows, x, 0, kOut);
    for (int64_t row = 0; row < kOut; ++row)
      for (int64_t t = 0; t < 4; ++t)
        EXPECT_EQ(product_of(kernel, rows, x.narrow(0, t, 1), row, row + 1).item<float>(),
                  all[t][row].item<float>())
            << kernel.name;
  }
}

// Every format whose products with few rows go a way of their own, of every dtype of x.
void expect_products(const FrozenWeight& weight, at::ScalarType dtype) {
  Workspace workspace;
  const int64_t in = weight.in_features(), out = weight.out_features();
  const at::Tensor x = normal(kFewRows, in, dtype, 5), before = normal(kFewRows, out, dtype, 6);
  for (int64_t expert = 0; expert < weight.num_experts(); ++expert) {
    const at::Tensor w = rows_of(weight, expert, dtype == at::kHalf ? at::kFloat : dtype);
    for (const int64_t tokens : {int64_t{1}, int64_t{3}, kFewRows}) {
      const at::Tensor of_x = x.narrow(0, 0, tokens), was = before.narrow(0, 0, tokens);
      expect_product(weight.forward(of_x, workspace, expert), of_x, w);
      at::Tensor y = was.clone();
      weight.forward_into(of_x, y, true, workspace, expert);
      expect_product(y, of_x, w, was);
    }
  }
}

TEST(RowsProduct, FourBitWeightsOfAnyShapeAndTypeMultiplyAsTheirDequantizedRows) {
  for (const at::ScalarType dtype : kTypes)
    for (const at::ScalarType original : kTypes)
      for (const int64_t in : {192, 200}) {  // blocks within rows, and across them
        SCOPED_TRACE(fmt::format("{} {} {}", c10::toString(dtype), c10::toString(original), in));
        const at::Tensor w = (normal(3 * 21, in, at::kFloat, 7) * 0.02).to(original);
        expect_products(FourBitWeight(w.view({3, 21, in}), {FourBitCode::kNf4, 64}, true), dtype);
      }
}

TEST(RowsProduct, DenseWeightsOfAnyTypeMultiplyAsTheyAre) {
  for (const at::ScalarType dtype : kTypes)
    for (const at::ScalarType stored : kTypes)
      for (const int64_t in : {576, 77}) {
        SCOPED_TRACE(fmt::format("{} {} {}", c10::toString(dtype), c10::toString(stored), in));
        expect_products(DenseWeight(normal(2 * 71, in, stored, 8).view({2, 71, in})), dtype);
      }
}

TEST(RowsProduct, WeightsOfOtherFormatsAreDecodedAFewRowsAtATime) {
  const Int8Weight int8(quantize_int8(normal(70, 96, at::kFloat, 9), "w"), {.weight_only = true});
  // Q8_0: an fp16 scale of 2^-6 before 32 codes.
  at::Tensor blocks = at::randint(0, 256, {70, 3, 34}, at::kByte);
  blocks.select(2, 0).zero_();
  blocks.select(2, 1).fill_(0x24);
  const GgufWeight gguf(blocks.view({70, 102}).contiguous(), io::DType::kQ8_0, 96);
  for (const at::ScalarType dtype : kTypes) {
    SCOPED_TRACE(c10::toString(dtype));
    expect_products(int8, dtype);
    expect_products(gguf, dtype);
  }
}

TEST(RowsProduct, SeveralWeightsAreMultipliedIntoColumnsSideBySide) {
  const FourBitWeight a(normal(70, 128, at::kBFloat16, 10), {FourBitCode::kNf4, 64}, true);
  const DenseWeight b(normal(9, 128, at::kBFloat16, 11));
  const at::Tensor x = normal(2, 128, at::kBFloat16, 12);
  at::Tensor wide = at::zeros({2, 100}, at::kBFloat16);
  at::Tensor y = wide.narrow(1, 10, 79);
  multiply_few_rows({&a, &b}, x, false, y);
  expect_product(y, x, at::cat({rows_of(a, 0, at::kBFloat16), rows_of(b, 0, at::kBFloat16)}));
  EXPECT_EQ(wide.narrow(1, 0, 10).abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(wide.narrow(1, 89, 11).abs().sum().item<float>(), 0.0f);
}

TEST(RowsProduct, ManyRowsAreRefused) {
  const FourBitWeight four_bit(normal(8, 64, at::kFloat, 13), {FourBitCode::kNf4, 64}, false);
  at::Tensor y = at::full({kFewRows + 1, 8}, 7.0f);
  EXPECT_THROW(multiply_few_rows({&four_bit}, normal(kFewRows + 1, 64, at::kFloat, 15), false, y),
               Error);
  EXPECT_TRUE(y.eq(7.0f).all().item<bool>());
}

TEST(RowsProduct, NoBitDependsOnTheThreadCount) {
  const FourBitWeight weight(normal(999, 576, at::kBFloat16, 17), {FourBitCode::kNf4, 64}, true);
  const at::Tensor x = normal(3, 576, at::kBFloat16, 18);
  Workspace workspace;
  const int before = omp_get_max_threads();
  set_num_threads(1);
  const at::Tensor one = weight.forward(x, workspace);
  set_num_threads(3);
  const at::Tensor three = weight.forward(x, workspace);
  set_num_threads(before);
  EXPECT_TRUE(test::same_bytes(one, three));
}

}  // namespace
}  // namespace qlora::quant
