#include "quant/blockwise8/blockwise8.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "quant/blockwise8/blockwise8_kernels.h"
#include "tests/support/quant_golden.h"
#include "tests/support/quant_reference.h"

namespace qlora::quant {
namespace {

using test::same_bytes;
using ::testing::HasSubstr;

at::Tensor signed_map() { return map_tensor(signed_dynamic_map(), at::kCPU); }
at::Tensor unsigned_map() { return map_tensor(unsigned_dynamic_map(), at::kCPU); }

at::Tensor wide_values(int64_t count, uint64_t seed = 1) {
  at::manual_seed(seed);
  return at::randn({count}) * at::exp2(at::randint(-14, 1, {count}).to(at::kFloat));
}

at::Tensor restored(const Blockwise8Tensor& q, at::ScalarType dtype = at::kFloat) {
  at::Tensor out = at::empty(q.codes.sizes(), q.codes.options().dtype(dtype));
  dequantize_blockwise8(q, out);
  return out;
}

std::vector<float> floats(const at::Tensor& tensor) {
  const at::Tensor values = tensor.cpu().to(at::kFloat).contiguous();
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()};
}

TEST(DynamicMap, EqualsThatOfBitsandbytesBitForBit) {
  const nlohmann::json golden = test::bitsandbytes_golden(QLORA_TEST_GOLDEN);
  EXPECT_TRUE(same_bytes(signed_map(), test::tensor_from_hex(golden["signed_map"], at::kFloat)));
  EXPECT_TRUE(
      same_bytes(unsigned_map(), test::tensor_from_hex(golden["unsigned_map"], at::kFloat)));
}

TEST(DynamicMap, AscendsStrictlyAndHoldsZeroAndOne) {
  for (const DynamicMap* map : {&signed_dynamic_map(), &unsigned_dynamic_map()}) {
    for (size_t i = 1; i < map->size(); ++i) EXPECT_LT((*map)[i - 1], (*map)[i]);
    EXPECT_EQ(map->back(), 1.0f);
  }
  EXPECT_EQ(signed_dynamic_map()[127], 0.0f);
  EXPECT_EQ(unsigned_dynamic_map()[0], 0.0f);
  for (size_t i = 1; i < 128; ++i)
    EXPECT_EQ(signed_dynamic_map()[127 - i], -signed_dynamic_map()[127 + i]);
}

TEST(Blockwise8, EqualsBitsandbytesByteForByte) {
  const nlohmann::json golden = test::bitsandbytes_golden(QLORA_TEST_GOLDEN);
  for (const auto& c : golden["blockwise8"]) {
    const at::Tensor values = test::tensor_from_hex(c["values"], at::kFloat);
    const Blockwise8Tensor q =
        quantize_blockwise8(values, c["signed"] ? signed_map() : unsigned_map(), c["block_size"]);
    EXPECT_TRUE(same_bytes(q.codes, test::tensor_from_hex(c["codes"], at::kByte)));
    EXPECT_TRUE(same_bytes(q.absmax, test::tensor_from_hex(c["absmax"], at::kFloat)));
  }
}

TEST(Blockwise8, EveryTypeBlockSizeAndMapEqualsTheReference) {
  for (const at::Tensor& map : {signed_map(), unsigned_map(), at::linspace(-1, 1, 256)}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (int64_t block_size = 64; block_size <= 4096; block_size *= 2) {
        const at::Tensor values = wide_values(2 * block_size + 17).to(dtype);
        const Blockwise8Tensor q = quantize_blockwise8(values, map, block_size);
        const auto expected = test::quantize_blockwise8_reference(
            floats(values), map.const_data_ptr<float>(), block_size);
        for (int64_t i = 0; i < values.numel(); ++i)
          ASSERT_EQ(q.codes[i].item<int>(), expected.codes[static_cast<size_t>(i)]);
        EXPECT_EQ(floats(q.absmax), expected.absmax);
      }
    }
  }
}

TEST(Blockwise8, EveryMapEntryIsRestoredExactly) {
  // absmax is 1, so x / absmax is the entry itself; a bin is at most 1.5e-5 away from it, nearer
  // than any neighbour beyond 1e-4.
  const at::Tensor map = signed_map();
  const at::Tensor values = restored(quantize_blockwise8(map, map, 256));
  const at::Tensor large = map.abs().gt(1e-3);
  EXPECT_TRUE(at::equal(values.index({large}), map.index({large})));
}

TEST(Blockwise8, TheErrorIsAtMostHalfAGapAndABin) {
  const at::Tensor values = wide_values(256 * 40);
  const Blockwise8Tensor q = quantize_blockwise8(values, signed_map(), 256);
  // Widest gap of the signed map near 1: 0.9 / 64; a bin is 2 / 65535 wide.
  const float bound = 0.9f / 64.0f / 2.0f + 1.0f / 65535.0f;
  EXPECT_TRUE((restored(q) - values)
                  .abs()
                  .view({40, 256})
                  .le(q.absmax.unsqueeze(1) * bound * 1.001f)
                  .all()
                  .item<bool>());
}

TEST(Blockwise8, AnAllZeroBlockHasScaleAndCodesZero) {
  at::Tensor values = wide_values(256 * 3);
  values.slice(0, 256, 512).zero_();
  const Blockwise8Tensor q = quantize_blockwise8(values, signed_map(), 256);
  EXPECT_EQ(q.absmax[1].item<float>(), 0.0f);
  EXPECT_TRUE(q.codes.slice(0, 256, 512).eq(0).all().item<bool>());
  EXPECT_TRUE(restored(q).slice(0, 256, 512).eq(0).all().item<bool>());
}

TEST(Blockwise8, ABlockAtATimeGivesWhatTheWholeGives) {
  const at::Tensor values = wide_values(1000);
  const Blockwise8Tensor whole = quantize_blockwise8(values, unsigned_map(), 256);
  const at::Tensor whole_restored = restored(whole);
  const CodeLookup& lookup = CodeLookup::unsigned_map();
  for (int64_t b = 0; b < 4; ++b) {
    const int64_t count = std::min<int64_t>(256, 1000 - b * 256);
    uint8_t codes[256];
    float decoded[256];
    const float absmax =
        cpu::encode_block8(values.const_data_ptr<float>() + b * 256, count, lookup, codes);
    cpu::decode_block8(codes, count, unsigned_dynamic_map().data(), absmax, decoded);
    EXPECT_EQ(absmax, whole.absmax[b].item<float>());
    EXPECT_EQ(std::memcmp(codes, whole.codes.const_data_ptr<uint8_t>() + b * 256,
                          static_cast<size_t>(count)),
              0);
    EXPECT_EQ(std::memcmp(decoded, whole_restored.const_data_ptr<float>() + b * 256,
                          static_cast<size_t>(count) * 4),
              0);
  }
}

TEST(Blockwise8, ANanInABlockReachesNoInvalidCode) {
  float values[64] = {};
  values[3] = std::numeric_limits<float>::quiet_NaN();
  uint8_t codes[64];
  EXPECT_TRUE(std::isnan(cpu::encode_block8(values, 64, CodeLookup::signed_map(), codes)));
  EXPECT_EQ(codes[3], 0);
}

TEST(Blockwise8, UnusableArgumentsAreRefused) {
  const at::Tensor values = wide_values(512);
  for (const int64_t size : {0, 32, 100, 8192})
    EXPECT_THROW(quantize_blockwise8(values, signed_map(), size), Error);
  EXPECT_THROW(quantize_blockwise8(values, at::zeros({255}), 256), Error);
  EXPECT_THROW(quantize_blockwise8(values.to(at::kDouble), signed_map(), 256), Error);
  at::Tensor bad = values.clone();
  bad[300] = std::numeric_limits<float>::infinity();
  try {
    quantize_blockwise8(bad, signed_map(), 256);
    FAIL() << "an infinity went through";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("inf at flat index 300"));
  }
  Blockwise8Tensor q = quantize_blockwise8(values, signed_map(), 256);
  at::Tensor short_out = at::empty({511});
  EXPECT_THROW(dequantize_blockwise8(q, short_out), Error);
  q.absmax = q.absmax.slice(0, 1).contiguous();
  at::Tensor out = at::empty({512});
  EXPECT_THROW(dequantize_blockwise8(q, out), Error);
}

TEST(Blockwise8Gpu, CodesFollowTheCudaDefinitionAndDecodeLikeTheCpu) {
  if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  for (const at::Tensor& map : {signed_map(), unsigned_map()}) {
    for (int64_t block_size = 64; block_size <= 4096; block_size *= 2) {
      at::Tensor values = wide_values(4096 * 8 + 17);
      values.slice(0, 0, block_size).zero_();
      const auto expected = test::quantize_blockwise8_cuda_reference(
          floats(values), map.const_data_ptr<float>(), block_size);
      Blockwise8Tensor q = quantize_blockwise8(values.cuda(), map.cuda(), block_size);
      const at::Tensor on_device = restored(q).cpu();
      q = {q.codes.cpu(), q.absmax.cpu(), map, block_size};
      EXPECT_EQ(floats(q.absmax), expected.absmax);
      int64_t differing = 0;  // by the approximate reciprocal, next to a tie
      for (int64_t i = 0; i < values.numel(); ++i) {
        const int code = q.codes.const_data_ptr<uint8_t>()[i],
                  other = expected.codes[static_cast<size_t>(i)];
        differing += code != other;
        ASSERT_LE(std::abs(code - other), 1);
      }
      EXPECT_LE(differing, 3);
      EXPECT_TRUE(same_bytes(on_device, restored(q)));
    }
  }
}

}  // namespace
}  // namespace qlora::quant
