// Weights in MXFP4: E2M1 codes, two a byte, with a power of two for 32 columns.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "quant/formats/mxfp4_weight.h"
#include "tests/support/decoded_rows.h"
#include "tests/support/quant_golden.h"

namespace qlora::quant {
namespace {

using test::decoded_rows;
using test::same_bytes;

// OCP Microscaling Formats 1.0, E2M1: 2 bits of exponent with bias 1.
float e2m1(int code) {
  const int exponent = (code >> 1) & 3, fraction = code & 1;
  const double magnitude = exponent == 0 ? 0.5 * fraction : std::ldexp(2 + fraction, exponent - 2);
  return static_cast<float>((code & 8) != 0 ? -magnitude : magnitude);
}

struct Parts {
  at::Tensor blocks, scales;
};

Parts random_parts(int64_t out, int64_t in) {
  return {at::randint(0, 256, {out, in / 2}, at::kByte),
          at::randint(110, 131, {out, in / 32}, at::kByte)};
}

at::Tensor by_definition(const Parts& parts) {
  const int64_t out = parts.blocks.size(0), in = 2 * parts.blocks.size(1);
  at::Tensor rows = at::empty({out, in}, at::kFloat);
  for (int64_t i = 0; i < out * in; ++i) {
    const int byte = parts.blocks.const_data_ptr<uint8_t>()[i / 2];
    const int exponent = parts.scales.const_data_ptr<uint8_t>()[i / 32] - 127;
    rows.mutable_data_ptr<float>()[i] =
        std::ldexp(e2m1(i % 2 == 0 ? byte & 15 : byte >> 4), exponent);
  }
  return rows;
}

TEST(Mxfp4Weight, TheSixteenNumbersComeLowHalfFirst) {
  at::Tensor blocks = at::empty({1, 16}, at::kByte);
  for (int i = 0; i < 16; ++i) blocks[0][i] = (((2 * i + 1) % 16) << 4) | ((2 * i) % 16);
  const Mxfp4Weight weight(blocks, at::full({1, 1}, 128, at::kByte));
  const float numbers[] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};
  for (const InstructionSet set : test::kInstructionSets) {
    const AtMost most(set);
    const at::Tensor rows = decoded_rows(weight);
    for (int64_t i = 0; i < 32; ++i) {
      EXPECT_EQ(rows[0][i].item<float>(), numbers[i % 16]) << i << " " << to_string(set);
      EXPECT_EQ(std::signbit(rows[0][i].item<float>()), i % 16 >= 8) << i << " " << to_string(set);
    }
  }
}

TEST(Mxfp4Weight, RowsAreNumbersTimesPowersOfTwoOnEveryInstructionSet) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{7, 32}, {9, 96}, {70, 2048}};
  for (const auto& [out, in] : shapes) {
    const Parts parts = random_parts(out, in);
    const Mxfp4Weight weight(parts.blocks, parts.scales);
    const at::Tensor expected = by_definition(parts);
    for (const InstructionSet set : test::kInstructionSets) {
      const AtMost most(set);
      for (const at::ScalarType dtype : test::kFloatingTypes) {
        SCOPED_TRACE(fmt::format("{}x{} {} {}", out, in, to_string(set), c10::toString(dtype)));
        EXPECT_TRUE(same_bytes(decoded_rows(weight, dtype), expected.to(dtype)));
        EXPECT_TRUE(
            same_bytes(decoded_rows(weight, 2, 6, dtype), expected.narrow(0, 2, 4).to(dtype)));
      }
    }
  }
}

TEST(Mxfp4Weight, TheSmallestScaleIsNoZero) {
  const Mxfp4Weight weight(at::full({1, 16}, 0x21, at::kByte), at::zeros({1, 1}, at::kByte));
  for (const InstructionSet set : test::kInstructionSets) {
    const AtMost most(set);
    const at::Tensor rows = decoded_rows(weight);
    EXPECT_EQ(rows[0][0].item<float>(), 0x1p-128f);
    EXPECT_EQ(rows[0][1].item<float>(), 0x1p-127f);
  }
}

TEST(Mxfp4Weight, ProductsAreThoseOfTheDecodedRows) {
  const Parts parts = random_parts(24, 96);
  EXPECT_TRUE(test::multiplies_decoded_rows(Mxfp4Weight(parts.blocks, parts.scales)));
}

TEST(Mxfp4Weight, SaysWhatItIsAndHowMuchItKeeps) {
  const Parts parts = random_parts(24, 96);
  const Mxfp4Weight weight(parts.blocks, parts.scales);
  EXPECT_EQ(weight.format(), "mxfp4");
  EXPECT_EQ(weight.in_features(), 96);
  EXPECT_EQ(weight.bytes(), 24 * (48 + 3));
  const NamedTensors state = weight.state();
  ASSERT_EQ(state.size(), 2u);
  EXPECT_TRUE(same_bytes(state[0].second, parts.blocks));
  EXPECT_TRUE(same_bytes(state[1].second, parts.scales));
}

TEST(Mxfp4Weight, PartsThatDoNotFitTogetherAreRefused) {
  const Parts parts = random_parts(4, 64);
  EXPECT_THROW(Mxfp4Weight(parts.blocks, parts.scales.narrow(0, 0, 3)), Error);
  EXPECT_THROW(Mxfp4Weight(parts.blocks, random_parts(4, 32).scales), Error);
  EXPECT_THROW(Mxfp4Weight(parts.blocks.to(at::kInt), parts.scales), Error);
  EXPECT_THROW(Mxfp4Weight(parts.blocks.view({4, 2, 16}), parts.scales), Error);
  const Mxfp4Weight weight(parts.blocks, parts.scales);
  at::Tensor rows = at::empty({4, 64});
  EXPECT_THROW(weight.dequantize_rows(1, 0, 4, rows), Error);
  EXPECT_THROW(weight.dequantize_rows(0, 1, 5, rows), Error);
}

class Mxfp4Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

TEST_F(Mxfp4Gpu, RowsHaveTheBitsOfTheCpu) {
  const Parts parts = random_parts(33, 96);
  const Mxfp4Weight on_cpu(parts.blocks, parts.scales),
      on_gpu(parts.blocks.cuda(), parts.scales.cuda());
  for (const at::ScalarType dtype : test::kFloatingTypes) {
    EXPECT_TRUE(same_bytes(decoded_rows(on_gpu, dtype).cpu(), decoded_rows(on_cpu, dtype)));
    EXPECT_TRUE(
        same_bytes(decoded_rows(on_gpu, 3, 8, dtype).cpu(), decoded_rows(on_cpu, 3, 8, dtype)));
  }
}

}  // namespace
}  // namespace qlora::quant
