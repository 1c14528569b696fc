// The formulas of the CUDA kernel, run on the CPU; and the kernel itself where there is a GPU.
#include "quant/gguf/gguf_elements.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/formats/gguf_weight.h"
#include "quant/gguf/gguf_blocks.h"

namespace qlora::quant {
namespace {

using io::DType;

constexpr DType kBlockTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                 DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                                 DType::kQ5_K, DType::kQ6_K, DType::kMXFP4};

// Rows of random bytes: every code, and scales of every magnitude, infinities and NaN among them.
at::Tensor random_blocks(DType dtype, int64_t rows, int64_t in) {
  return at::randint(
      0, 256, {rows, in / io::elements_per_block(dtype) * io::bytes_per_block(dtype)}, at::kByte);
}

// Equal bits, or both no number: the sign and payload of a NaN are the processor's.
bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

template <typename Format>
void expect_the_decoders_bits(DType dtype) {
  ASSERT_EQ(Format::kElements, io::elements_per_block(dtype));
  ASSERT_EQ(Format::kBytes, io::bytes_per_block(dtype));
  constexpr int64_t kBlocks = 400;
  const at::Tensor bytes = random_blocks(dtype, 1, kBlocks * Format::kElements);
  const auto* blocks = bytes.const_data_ptr<uint8_t>();
  std::vector<float> expected(kBlocks * Format::kElements);
  dequantize_gguf_blocks(dtype, reinterpret_cast<const std::byte*>(blocks),
                         static_cast<int64_t>(expected.size()), expected.data());
  for (int64_t block = 0; block < kBlocks; ++block)
    for (int first = 0; first < Format::kElements; first += 8) {
      const Format values(blocks + block * Format::kBytes, first);
      for (int j = 0; j < 8; ++j) {
        const auto i = static_cast<size_t>(block * Format::kElements + first + j);
        ASSERT_TRUE(same(values(j), expected[i])) << io::dtype_name(dtype) << " element " << i;
      }
    }
}

TEST(GgufElements, EightAtATimeAreTheBitsOfTheWholeBlock) {
  expect_the_decoders_bits<gguf::Q4_0>(DType::kQ4_0);
  expect_the_decoders_bits<gguf::Q4_1>(DType::kQ4_1);
  expect_the_decoders_bits<gguf::Q5_0>(DType::kQ5_0);
  expect_the_decoders_bits<gguf::Q5_1>(DType::kQ5_1);
  expect_the_decoders_bits<gguf::Q8_0>(DType::kQ8_0);
  expect_the_decoders_bits<gguf::Q2_K>(DType::kQ2_K);
  expect_the_decoders_bits<gguf::Q3_K>(DType::kQ3_K);
  expect_the_decoders_bits<gguf::Q4_K>(DType::kQ4_K);
  expect_the_decoders_bits<gguf::Q5_K>(DType::kQ5_K);
  expect_the_decoders_bits<gguf::Q6_K>(DType::kQ6_K);
  expect_the_decoders_bits<gguf::MXFP4>(DType::kMXFP4);
}

TEST(GgufWeight, StackedExpertsHaveTheirRowsBehindOneAnother) {
  for (const DType dtype : kBlockTypes) {
    const at::Tensor blocks = random_blocks(dtype, 3 * 4, 512);
    const GgufWeight flat(blocks, dtype, 512), stacked(blocks.view({3, 4, -1}), dtype, 512);
    EXPECT_EQ(stacked.num_experts(), 3);
    EXPECT_EQ(stacked.out_features(), 4);
    at::Tensor a = at::empty({2, 512}, at::kFloat), b = at::empty({2, 512}, at::kFloat);
    flat.dequantize_rows(0, 2 * 4 + 1, 2 * 4 + 3, a);
    stacked.dequantize_rows(2, 1, 3, b);
    EXPECT_TRUE(at::equal(a.view(at::kInt), b.view(at::kInt)));
    EXPECT_THROW(stacked.dequantize_rows(2, 3, 5, b), Error);
    EXPECT_THROW(stacked.dequantize_rows(3, 0, 2, b), Error);
  }
}

// Sums of fp32 in another order than the definition's, of numbers that are not rounded first.
TEST(GgufWeight, FewRowsAreMultipliedByTheDecodedRowsOnEveryInstructionSet) {
  for (const InstructionSet set : {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                   InstructionSet::kAvx512, InstructionSet::kAvx512Bfloat16}) {
    const AtMost most(set);
    for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kMXFP4})
      for (const int64_t tokens : {1, 3, 8}) {
        at::Tensor blocks = random_blocks(dtype, 13, 96);
        at::Tensor each = blocks.view({-1, io::bytes_per_block(dtype)});
        if (dtype == DType::kMXFP4)
          each.select(1, 0).fill_(124);
        else
          each.select(1, 1).fill_(0x30);  // scales between 1/8 and 1/4, and so are minima
        if (dtype == DType::kQ4_1) each.select(1, 3).fill_(0xb0);
        const GgufWeight weight(blocks, dtype, 96);
        at::Tensor rows = at::empty({13, 96});
        weight.dequantize_rows(0, 0, 13, rows);
        const at::Tensor x = at::randn({tokens, 96});
        Workspace workspace;
        const at::Tensor wide = x.to(at::kDouble), w = rows.to(at::kDouble);
        const at::Tensor exact = at::mm(wide, w.t());
        const at::Tensor bound = at::mm(wide.abs(), w.abs().t()) * 2e-6;
        const at::Tensor found = weight.forward(x, workspace, 0);
        EXPECT_TRUE(((found - exact).abs() <= bound).all().item<bool>())
            << io::dtype_name(dtype) << " " << tokens << " " << to_string(set);
      }
  }
}

TEST(GgufWeight, RowsThatAreNoWholeBlocksAreRefused) {
  EXPECT_THROW(GgufWeight(random_blocks(DType::kQ4_0, 4, 64), DType::kQ4_0, 63), Error);
  EXPECT_THROW(GgufWeight(random_blocks(DType::kQ4_0, 4, 64), DType::kQ4_0, 96), Error);
  EXPECT_THROW(GgufWeight(random_blocks(DType::kQ4_K, 4, 256), DType::kQ8_0, 256), Error);
  EXPECT_THROW(GgufWeight(at::zeros({4, 64}), DType::kF32, 16), Error);
}

class GgufBlocksGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
  }
};

TEST_F(GgufBlocksGpu, DecodeTheBitsOfTheCpuInEveryType) {
  for (const DType dtype : kBlockTypes)
    for (const at::ScalarType out : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor blocks = random_blocks(dtype, 37, 1024);
      const GgufWeight on_cpu(blocks, dtype, 1024), on_gpu(blocks.to(at::kCUDA), dtype, 1024);
      at::Tensor expected = at::empty({30, 1024}, out);
      at::Tensor found = at::empty({30, 1024}, expected.options().device(at::kCUDA));
      on_cpu.dequantize_rows(0, 5, 35, expected);
      on_gpu.dequantize_rows(0, 5, 35, found);
      const at::ScalarType bits = out == at::kFloat ? at::kInt : at::kShort;
      const at::Tensor back = found.cpu();
      const at::Tensor both_nan = at::isnan(back).logical_and(at::isnan(expected));
      EXPECT_TRUE(back.view(bits).eq(expected.view(bits)).logical_or(both_nan).all().item<bool>())
          << io::dtype_name(dtype) << " as " << c10::toString(out);
    }
}

TEST_F(GgufBlocksGpu, RowsGoWhereverTheOutputLies) {
  const at::Tensor blocks = random_blocks(DType::kQ4_0, 4, 32);
  const GgufWeight on_cpu(blocks, DType::kQ4_0, 32), on_gpu(blocks.to(at::kCUDA), DType::kQ4_0, 32);
  at::Tensor expected = at::empty({4, 32}, at::kFloat);
  on_cpu.dequantize_rows(0, 0, 4, expected);
  at::Tensor room = at::zeros({129}, at::TensorOptions().dtype(at::kFloat).device(at::kCUDA));
  at::Tensor shifted = room.narrow(0, 1, 128).view({4, 32});  // four bytes off a 16-byte border
  on_gpu.dequantize_rows(0, 0, 4, shifted);
  EXPECT_TRUE(at::equal(at::nan_to_num(shifted.cpu()), at::nan_to_num(expected)));
  EXPECT_EQ(room[0].item<float>(), 0.0f);
}

TEST_F(GgufBlocksGpu, ProductsAreThoseOfTheDecodedRows) {
  at::Tensor blocks = random_blocks(DType::kQ8_0, 64, 256);
  blocks.view({-1, 34}).select(1, 1).fill_(0x1c);  // scales of about 2^-8
  const GgufWeight weight(blocks.to(at::kCUDA), DType::kQ8_0, 256);
  at::Tensor rows = at::empty({64, 256}, at::TensorOptions().dtype(at::kFloat).device(at::kCUDA));
  weight.dequantize_rows(0, 0, 64, rows);
  const at::Tensor x = at::randn({16, 256}, rows.options());
  Workspace workspace;
  EXPECT_TRUE(at::equal(weight.forward(x, workspace), x.mm(rows.t())));
}

}  // namespace
}  // namespace qlora::quant
