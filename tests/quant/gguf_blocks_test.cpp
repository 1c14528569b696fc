// Agreement with gguf-py over random blocks of every type is checked by tests/interop/io_files.py.
#include "quant/gguf/gguf_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "base/bfloat16.h"
#include "base/error.h"
#include "base/instruction_set.h"

namespace qlora::quant {
namespace {

using io::DType;

constexpr DType kBlockTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                 DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                                 DType::kQ5_K, DType::kQ6_K, DType::kMXFP4};

std::vector<float> decode(DType dtype, const std::string& bytes) {
  const int64_t elements = static_cast<int64_t>(bytes.size()) / io::bytes_per_block(dtype) *
                           io::elements_per_block(dtype);
  std::vector<float> out(static_cast<size_t>(elements));
  dequantize_gguf_blocks(dtype, reinterpret_cast<const std::byte*>(bytes.data()), elements,
                         out.data());
  return out;
}

TEST(GgufBlocks, Q4_0DecodesARampByHand) {
  // d = 0.5; elements are pairs of -8 .. 7.
  const std::vector<float> values = decode(
      DType::kQ4_0, std::string("\x00\x38\x80\x80\x91\x91\xa2\xa2\xb3\xb3\xc4\xc4\xd5\xd5\xe6\xe6"
                                "\xf7\xf7",
                                18));
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(values[i], 0.5f * (static_cast<float>(i / 2) - 8)) << i;
}

TEST(GgufBlocks, Q4_1AddsTheMinimum) {
  // d = 2, m = -1, all nibbles 3.
  const std::vector<float> values =
      decode(DType::kQ4_1, std::string("\x00\x40\x00\xbc", 4) + std::string(16, '\x33'));
  EXPECT_THAT(values, testing::Each(5.0f));
}

TEST(GgufBlocks, Q5_0TakesItsFifthBitFromTheWord) {
  // d = 1, bits 0 and 31 set, nibbles 0: elements 0 and 31 are 16 - 16, the others -16.
  const std::vector<float> values =
      decode(DType::kQ5_0, std::string("\x00\x3c\x01\x00\x00\x80", 6) + std::string(16, '\0'));
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(values[i], i == 0 || i == 31 ? 0.0f : -16.0f) << i;
}

TEST(GgufBlocks, Q8_0IsSignedBytesTimesTheScale) {
  std::string block("\x00\x34", 2);  // d = 0.25
  for (int i = 0; i < 32; ++i) block += static_cast<char>(i * 8 - 128);
  const std::vector<float> values = decode(DType::kQ8_0, block);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(values[i], 2.0f * static_cast<float>(i) - 32) << i;
}

TEST(GgufBlocks, Q4_KUnpacksSixBitScalesOfBothHalves) {
  // d = 1, dmin = 1. Scales: sub-block 0 has 63, sub-block 4 has 1 | 2 << 4; minimum of 5 is 3.
  std::string block("\x00\x3c\x00\x3c", 4);
  std::string scales(12, '\0');
  scales[0] = static_cast<char>(63 | (2 << 6));
  scales[8] = 1;
  scales[9] = 3 << 4;
  block += scales + std::string(128, '\x11');
  const std::vector<float> values = decode(DType::kQ4_K, block);
  EXPECT_EQ(values[0], 63.0f);
  EXPECT_EQ(values[32], 0.0f);
  EXPECT_EQ(values[4 * 32], 33.0f);
  EXPECT_EQ(values[5 * 32], -3.0f);
}

TEST(GgufBlocks, Q6_KCentresItsSixBitsOnZero) {
  // d = 1, scales 1 .. 16, all quants 0: each value is -32 times the scale of its 16.
  std::string block(192, '\0');
  for (int i = 1; i <= 16; ++i) block += static_cast<char>(i);
  block += std::string("\x00\x3c", 2);
  const std::vector<float> values = decode(DType::kQ6_K, block);
  for (size_t i = 0; i < 256; ++i)
    EXPECT_EQ(values[i], -32.0f * static_cast<float>(i / 16 + 1)) << i;
}

// Byte j holds code j and code 15 - j: every number, and every number in reverse.
std::string mxfp4_block(int scale) {
  std::string block(1, static_cast<char>(scale));
  for (int j = 0; j < 16; ++j) block += static_cast<char>(j | ((15 - j) << 4));
  return block;
}

// What the package gguf gives; numbers are doubled and scales halved there.
TEST(GgufBlocks, Mxfp4MultipliesNumbersOfFourBitsByAPowerOfTwo) {
  constexpr float kNumbers[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  for (const int scale : {0, 1, 2, 120, 127, 130, 250}) {
    const std::vector<float> values = decode(DType::kMXFP4, mxfp4_block(scale));
    for (size_t i = 0; i < 16; ++i) {
      EXPECT_EQ(values[i], std::ldexp(kNumbers[i], scale - 127)) << scale << " " << i;
      EXPECT_EQ(values[16 + i], values[15 - i]) << scale << " " << i;
    }
    EXPECT_FALSE(std::signbit(values[8])) << "minus zero";
  }
  // The largest scale is no NaN in GGUF.
  EXPECT_EQ(decode(DType::kMXFP4, std::string(1, '\xff') + std::string(16, '\x11'))[0], 0x1p127f);
}

TEST(GgufBlocks, Mxfp4IsTheSameOnEveryInstructionSet) {
  std::string bytes;
  for (int block = 0; block < 67; ++block) {
    std::string one = mxfp4_block(90 + block);
    std::rotate(one.begin() + 1, one.begin() + 1 + block % 16, one.end());
    bytes += one;
  }
  const std::vector<float> wanted = decode(DType::kMXFP4, bytes);
  for (const InstructionSet set : {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                   InstructionSet::kAvx512, InstructionSet::kAvx512Bfloat16}) {
    const AtMost most(set);
    EXPECT_EQ(decode(DType::kMXFP4, bytes), wanted) << to_string(set);
    std::vector<uint16_t> narrow(wanted.size());
    dequantize_gguf_blocks(DType::kMXFP4, reinterpret_cast<const std::byte*>(bytes.data()),
                           static_cast<int64_t>(wanted.size()), narrow.data(),
                           ElementType::kBFloat16);
    for (size_t i = 0; i < wanted.size(); ++i)
      EXPECT_EQ(narrow[i], float_to_bfloat16(wanted[i])) << to_string(set) << " " << i;
  }
}

TEST(GgufBlocks, EveryBlockIsDecodedByItselfWhereverItLies) {
  for (const DType dtype : kBlockTypes) {
    const size_t stride = static_cast<size_t>(io::bytes_per_block(dtype));
    const size_t per_block = static_cast<size_t>(io::elements_per_block(dtype));
    std::string bytes(stride * 1500, '\0');  // enough for several threads
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>((i * 2654435761u) >> 13);
    const std::vector<float> all = decode(dtype, bytes);
    for (size_t block = 0; block < 1500; block += 7) {
      const std::vector<float> one = decode(dtype, bytes.substr(block * stride, stride));
      for (size_t i = 0; i < per_block; ++i)
        EXPECT_EQ(std::bit_cast<uint32_t>(one[i]),
                  std::bit_cast<uint32_t>(all[block * per_block + i]))
            << io::dtype_name(dtype);
    }
    std::string shifted = "x" + bytes;
    std::vector<float> unaligned(per_block);
    dequantize_gguf_blocks(dtype, reinterpret_cast<const std::byte*>(shifted.data()) + 1,
                           static_cast<int64_t>(per_block), unaligned.data());
    EXPECT_EQ(std::bit_cast<uint32_t>(unaligned[5]), std::bit_cast<uint32_t>(all[5]));
  }
}

TEST(GgufBlocks, PlainTypesPassThrough) {
  EXPECT_THAT(decode(DType::kF16, std::string("\x00\x3c\x00\xc0", 4)), testing::ElementsAre(1, -2));
  EXPECT_THAT(decode(DType::kBF16, std::string("\x80\x3f", 2)), testing::ElementsAre(1));
  EXPECT_THAT(decode(DType::kF32, std::string("\x00\x00\x80\x3f", 4)), testing::ElementsAre(1));
}

TEST(GgufBlocks, PartsOfBlocksAndOtherTypesAreRefused) {
  std::vector<std::byte> bytes(512);
  std::vector<float> out(512);
  EXPECT_THROW(dequantize_gguf_blocks(DType::kQ4_0, bytes.data(), 31, out.data()), Error);
  EXPECT_THROW(dequantize_gguf_blocks(DType::kQ6_K, bytes.data(), 32, out.data()), Error);
  EXPECT_THROW(dequantize_gguf_blocks(DType::kI32, bytes.data(), 4, out.data()), Error);
}

}  // namespace
}  // namespace qlora::quant
