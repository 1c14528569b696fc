// Golden blocks are llama.cpp's: tests/interop/gguf_golden.py wrote them, and gives the formula of
// their numbers.
#include "quant/gguf/gguf_quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/float16.h"
#include "quant/gguf/gguf_blocks.h"

namespace qlora::quant {
namespace {
using io::DType;

constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                            DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
constexpr size_t kElements = 512;

std::vector<float> golden_numbers() {
  std::vector<float> values;
  for (uint32_t i = 0; i < kElements; ++i) {
    uint32_t h = i * 0x9E3779B9u + 1;
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    const uint32_t sum = (h & 255) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24);
    const auto centred = static_cast<float>(static_cast<int>(sum) - 510);
    values.push_back(std::ldexp(centred, -8 - static_cast<int>(i / 32 % 5)));
  }
  return values;
}

std::vector<std::byte> encoded(DType type, const std::vector<float>& values) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<std::byte> blocks(
      static_cast<size_t>(count / io::elements_per_block(type) * io::bytes_per_block(type)));
  quantize_gguf_blocks(type, values.data(), count, blocks.data());
  return blocks;
}

std::vector<float> decoded(DType type, const std::vector<std::byte>& blocks, size_t elements) {
  std::vector<float> values(elements);
  dequantize_gguf_blocks(type, blocks.data(), static_cast<int64_t>(elements), values.data());
  return values;
}

std::vector<float> round_trip(DType type, const std::vector<float>& values) {
  return decoded(type, encoded(type, values), values.size());
}

std::string hex(const std::vector<std::byte>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[static_cast<size_t>(byte) >> 4];
    text += kDigits[static_cast<size_t>(byte) & 15];
  }
  return text;
}

TEST(GgufQuantize, TheBlocksAreThoseOfLlamaCpp) {
  std::ifstream file(QLORA_TEST_GOLDEN "/quant/gguf_blocks.txt");
  std::map<std::string, std::string> golden;
  for (std::string name, bytes; file >> name >> bytes;) golden[name] = bytes;
  ASSERT_EQ(golden.size(), std::size(kTypes));
  for (const DType type : kTypes)
    EXPECT_EQ(hex(encoded(type, golden_numbers())), golden.at(io::dtype_name(type)))
        << io::dtype_name(type);
}

// Half a step of the codes over the range of a block, and as much again for scales and minima in
// fp16 and six bits, and for the side of zero that Q4_0 and Q5_0 have a code less on.
TEST(GgufQuantize, NoNumberIsOffByMoreThanAStep) {
  const std::map<DType, float> codes = {{DType::kQ4_0, 15}, {DType::kQ4_1, 15},  {DType::kQ5_0, 31},
                                        {DType::kQ5_1, 31}, {DType::kQ8_0, 254}, {DType::kQ4_K, 15},
                                        {DType::kQ5_K, 31}};
  const std::vector<float> values = golden_numbers();
  for (const auto& [type, steps] : codes) {
    const std::vector<float> found = round_trip(type, values);
    // Scales of a block of 256 are stored as parts of the largest.
    const auto block = static_cast<size_t>(io::elements_per_block(type));
    for (size_t first = 0; first < kElements; first += block) {
      float largest = 0;
      for (size_t i = first; i < first + block; ++i)
        largest = std::max(largest, std::fabs(values[i]));
      for (size_t i = first; i < first + block; ++i)
        EXPECT_LE(std::fabs(found[i] - values[i]), 2 * largest / steps * 1.1f)
            << io::dtype_name(type) << " " << i;
    }
  }
}

TEST(GgufQuantize, MoreBitsComeNearer) {
  const std::vector<float> values = golden_numbers();
  const auto error = [&](DType type) {
    const std::vector<float> found = round_trip(type, values);
    double sum = 0;
    for (size_t i = 0; i < kElements; ++i) sum += std::pow(found[i] - values[i], 2);
    return sum;
  };
  EXPECT_LT(error(DType::kQ5_0), error(DType::kQ4_0));
  EXPECT_LT(error(DType::kQ5_1), error(DType::kQ4_1));
  EXPECT_LT(error(DType::kQ5_K), error(DType::kQ4_K));
  EXPECT_LT(error(DType::kQ6_K), error(DType::kQ5_K));
  EXPECT_LT(error(DType::kQ8_0), error(DType::kQ6_K));
}

TEST(GgufQuantize, ZerosStayZeros) {
  const std::vector<float> zeros(kElements, 0.0f);
  for (const DType type : kTypes)
    EXPECT_THAT(round_trip(type, zeros), testing::Each(0.0f)) << io::dtype_name(type);
}

// A constant block's scale, or its minimum, is rounded to fp16 (11 bits) and, in K blocks, is 63 of
// 63 or -128 of -128 parts of what is stored.
TEST(GgufQuantize, AConstantStaysOneUpToTheRoundingOfItsScale) {
  for (const float constant : {0.3f, -0.3f, 100.0f}) {
    const std::vector<float> values(kElements, constant);
    for (const DType type : kTypes) {
      const std::vector<float> found = round_trip(type, values);
      for (const float value : found) {
        EXPECT_EQ(value, found[0]);
        EXPECT_NEAR(value, constant, std::fabs(constant) / 500) << io::dtype_name(type);
      }
    }
  }
}

TEST(GgufQuantize, NumbersThatABlockHoldsComeBackExactly) {
  std::vector<float> q4(kElements), q5(kElements), q6(kElements), q8(kElements), shifted(kElements);
  for (size_t i = 0; i < kElements; ++i) {
    q4[i] = 0.25f * static_cast<float>(static_cast<int>(i % 16) - 8);
    q5[i] = 0.25f * static_cast<float>(static_cast<int>(i % 32) - 16);
    q6[i] = 0.25f * static_cast<float>(4 * static_cast<int>(i % 16) - 32);
    q8[i] = 0.5f * static_cast<float>(static_cast<int>(i % 32) * 8 - 127);
    shifted[i] = 3 + 0.25f * static_cast<float>(i % 16);
  }
  EXPECT_EQ(round_trip(DType::kQ4_0, q4), q4);
  EXPECT_EQ(round_trip(DType::kQ5_0, q5), q5);
  EXPECT_EQ(round_trip(DType::kQ8_0, q8), q8);
  EXPECT_EQ(round_trip(DType::kQ4_1, shifted), shifted);
  EXPECT_EQ(round_trip(DType::kQ6_K, q6), q6);
}

TEST(GgufQuantize, EachBlockIsEncodedByItself) {
  std::vector<float> many;
  for (int i = 0; i < 40; ++i)  // enough for several threads
    for (const float value : golden_numbers()) many.push_back(value * static_cast<float>(i + 1));
  for (const DType type : kTypes) {
    const std::vector<std::byte> all = encoded(type, many);
    const size_t stride = all.size() / 40;
    for (const size_t i : {size_t{0}, size_t{7}, size_t{39}}) {
      const std::vector<float> part(many.begin() + static_cast<ptrdiff_t>(i * kElements),
                                    many.begin() + static_cast<ptrdiff_t>((i + 1) * kElements));
      EXPECT_EQ(encoded(type, part),
                std::vector<std::byte>(all.begin() + static_cast<ptrdiff_t>(i * stride),
                                       all.begin() + static_cast<ptrdiff_t>((i + 1) * stride)))
          << io::dtype_name(type);
    }
  }
}

TEST(GgufQuantize, PlainTypesAreRoundedToNearest) {
  const std::vector<float> values = {1.0f, -2.5f, 0.1f};
  EXPECT_EQ(round_trip(DType::kF32, values), values);
  EXPECT_EQ(round_trip(DType::kF16, values)[2], float16_to_float(float_to_float16(0.1f)));
  EXPECT_EQ(round_trip(DType::kBF16, values)[2], 0.10009765625f);
}

TEST(GgufQuantize, OtherTypesAndPartsOfBlocksAreRefused) {
  const std::vector<float> values(kElements);
  std::vector<std::byte> out(4 * kElements);
  EXPECT_THROW(quantize_gguf_blocks(DType::kQ2_K, values.data(), 256, out.data()), Error);
  EXPECT_THROW(quantize_gguf_blocks(DType::kQ4_K, values.data(), 32, out.data()), Error);
  EXPECT_THROW(quantize_gguf_blocks(DType::kQ8_0, values.data(), 31, out.data()), Error);
  EXPECT_FALSE(is_gguf_encoding(DType::kQ3_K));
  EXPECT_TRUE(is_gguf_encoding(DType::kQ6_K));
}

}  // namespace
}  // namespace qlora::quant
