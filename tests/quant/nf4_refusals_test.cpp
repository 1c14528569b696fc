// What quantization and restoring refuse.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "quant/nf4/nf4.h"

namespace qlora::quant {
namespace {

using ::testing::HasSubstr;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

at::Tensor normal_weight(int64_t count, at::ScalarType dtype) {
  return (at::randn({count}) * 0.02).to(dtype);
}

template <typename Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Nf4Refusals, ANonFiniteWeightIsNamedWithItsPlace) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const at::ScalarType dtype : kTypes) {
      at::Tensor weight = normal_weight(64 * 4, dtype);
      weight[130] = bad;
      weight[200] = bad;
      EXPECT_THAT(message_of([&] {
                    quantize_four_bit(weight, {FourBitCode::kNf4, 64}, true);
                  }),
                  HasSubstr("flat index 130"));
    }
  }
}

TEST(Nf4Refusals, UnusableArgumentsAreRefused) {
  const at::Tensor weight = normal_weight(256, at::kFloat);
  for (const int64_t block_size : {0, 16, 48, 8192})
    EXPECT_THAT(message_of([&] {
                  quantize_four_bit(weight, {FourBitCode::kNf4, block_size}, false);
                }),
                HasSubstr(fmt::format("got {}", block_size)));
  const FourBitLayout layout;
  EXPECT_THAT(message_of([&] { quantize_four_bit(weight.to(at::kDouble), layout, false); }),
              HasSubstr("Double"));
  EXPECT_THROW(quantize_four_bit(weight.view({16, 16}).t(), layout, false), Error);
  EXPECT_THROW(quantize_four_bit(at::empty({0}), layout, false), Error);
}

TEST(Nf4Refusals, ABlockLargerThanTheTensorIsOneShortBlockAndNoMistake) {
  const at::Tensor weight = normal_weight(45, at::kFloat);
  for (const bool double_quant : {false, true}) {
    const FourBitTensor large = quantize_four_bit(weight, {FourBitCode::kNf4, 4096}, double_quant);
    const FourBitTensor fitting = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, double_quant);
    EXPECT_EQ(large.num_blocks(), 1);
    EXPECT_TRUE(at::equal(large.packed, fitting.packed));
    at::Tensor a = at::empty({45}), b = at::empty({45});
    dequantize_range(large, 0, 45, a);
    dequantize_range(fitting, 0, 45, b);
    EXPECT_TRUE(at::equal(a, b));
    EXPECT_LE((a - weight).abs().max().item<float>(), 0.16f * weight.abs().max().item<float>());
  }
}

TEST(Nf4Refusals, ARangeOrBufferThatDoesNotFitIsRefused) {
  const FourBitTensor q = quantize_four_bit(normal_weight(256, at::kFloat), {}, false);
  at::Tensor out = at::empty({64});
  EXPECT_THROW(dequantize_range(q, -1, 63, out), Error);
  EXPECT_THROW(dequantize_range(q, 200, 264, out), Error);
  EXPECT_THROW(dequantize_range(q, 64, 0, out), Error);
  EXPECT_THROW(dequantize_range(q, 0, 65, out), Error);
  at::Tensor integers = at::empty({64}, at::kInt);
  EXPECT_THROW(dequantize_range(q, 0, 64, integers), Error);
  at::Tensor strided = at::empty({128}).slice(0, 0, 128, 2);
  EXPECT_THROW(dequantize_range(q, 0, 64, strided), Error);
}

TEST(Nf4Refusals, PartsThatDoNotFitTogetherAreRefused) {
  const FourBitTensor good = quantize_four_bit(normal_weight(256, at::kFloat), {}, false);
  const auto refused = [&](const auto& change) {
    FourBitTensor bad = good;
    change(bad);
    EXPECT_THROW(check_four_bit(bad), Error);
  };
  EXPECT_NO_THROW(check_four_bit(good));
  refused([](FourBitTensor& q) { q.num_elements = std::numeric_limits<int64_t>::max(); });
  refused([](FourBitTensor& q) { q.num_elements = 0; });
  refused([](FourBitTensor& q) { q.packed = q.packed.slice(0, 1).contiguous(); });
  refused([](FourBitTensor& q) { q.packed = q.packed.to(at::kChar); });
  refused([](FourBitTensor& q) { q.absmax = q.absmax.slice(0, 1).contiguous(); });
  refused([](FourBitTensor& q) { q.absmax = q.absmax.to(at::kHalf); });
  refused([](FourBitTensor& q) { q.absmax.reset(); });
  refused([](FourBitTensor& q) { q.layout.block_size = 100; });
}

}  // namespace
}  // namespace qlora::quant
