#include "lora/dropout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/device.h"
#include "base/error.h"
#include "base/philox.h"

namespace qlora::lora {
namespace {

constexpr uint64_t kKey = 0x123456789abcdef1;

// Bits of an element as the header has them, one at a time.
uint32_t bits_of(uint64_t key, int64_t element) {
  const int64_t group = element / 128, word = element % 128 / 32, lane = element % 32 / 2;
  const PhiloxWords words = philox_words(key, static_cast<uint64_t>(16 * group + lane));
  return words.word[word] >> (16 * (element % 2)) & 0xffffu;
}

TEST(Dropout, TheMaskIsItsDefinition) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = at::arange(1, 3001, at::kFloat).to(type);
    const at::Tensor dropped = dropout(x, 0.3, kKey);
    const at::Tensor scaled = (x.to(at::kFloat) * (1.0f / (1.0f - 0.3f))).to(type);
    for (int64_t i = 0; i < x.numel(); ++i)
      ASSERT_EQ(dropped[i].item<float>(),
                bits_of(kKey, i) < 19661 ? 0.0f : scaled[i].item<float>())  // 0.3 of 65536
          << i;
  }
}

TEST(Dropout, MaskDependsOnTheKeyAlone) {
  const at::Tensor x = at::ones({100000});
  const at::Tensor a = dropout(x, 0.25, kKey);
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    EXPECT_TRUE(at::equal(a, dropout(x, 0.25, kKey))) << threads << " threads";
  }
  set_num_threads(0);
  EXPECT_TRUE(at::equal(a.narrow(0, 0, 1000), dropout(x.narrow(0, 0, 1000), 0.25, kKey)));
  EXPECT_FALSE(at::equal(a, dropout(x, 0.25, kKey + 1)));
  const double kept = (a > 0).sum().item<double>();
  EXPECT_NEAR(kept, 75000, 5 * std::sqrt(100000 * 0.25 * 0.75));  // five standard deviations
  EXPECT_FLOAT_EQ(a.max().item<float>(), 1.0f / 0.75f);
}

TEST(Dropout, NeighboursAreIndependent) {
  const at::Tensor kept = (dropout(at::ones({1 << 18}), 0.5, kKey) > 0).to(at::kDouble) - 0.5;
  for (const int64_t apart : {1, 2, 8, 31, 32, 64, 128, 2048}) {
    const int64_t count = kept.numel() - apart;
    const double sum =
        (kept.narrow(0, 0, count) * kept.narrow(0, apart, count)).sum().item<double>();
    EXPECT_LT(std::abs(sum), 5 * 0.25 * std::sqrt(static_cast<double>(count))) << apart;
  }
}

TEST(Dropout, WhatIsDroppedTogetherHasOneMask) {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({37, 29}).to(type), z = at::randn({37, 29}).to(type),
                     before = at::randn({37, 29}).to(type);
    at::Tensor sum = before.clone();
    EXPECT_TRUE(at::equal(dropout(x, 0.4, kKey, z, sum), dropout(x, 0.4, kKey)));
    const at::Tensor mask = dropout(at::ones({37, 29}), 0.4, kKey) > 0;
    const at::Tensor exact = before.to(at::kDouble) + z.to(at::kDouble) * mask / (1 - 0.4);
    EXPECT_TRUE(
        at::allclose(sum.to(at::kDouble), exact, type == at::kFloat ? 1e-6 : 1.0 / 256, 1e-6));
  }
}

TEST(Dropout, NothingIsDroppedAtZeroAndNoProbabilityIsOne) {
  const at::Tensor x = at::randn({500});
  EXPECT_TRUE(at::equal(dropout(x, 0.0, kKey), x));
  EXPECT_THROW(dropout(x, 1.0, kKey), Error);
  EXPECT_THROW(dropout(x, -0.1, kKey), Error);
}

TEST(DropoutGpu, IsThatOfTheCpu) {
  if (!cuda_available()) GTEST_SKIP() << "no GPU";
  const at::Device gpu("cuda:0");
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = at::randn({37, 29}).to(type), z = at::randn({37, 29}).to(type);
    at::Tensor sum = at::randn({37, 29}).to(type), gpu_sum = sum.to(gpu);
    const at::Tensor dropped = dropout(x, 0.4, kKey, z, sum);
    EXPECT_TRUE(at::equal(dropout(x.to(gpu), 0.4, kKey, z.to(gpu), gpu_sum).cpu(), dropped));
    EXPECT_TRUE(at::equal(gpu_sum.cpu(), sum));
  }
}

// Pairs are moved at once where memory allows it, which it does not one element behind its begin.
TEST(DropoutGpu, HasTheSameBitsWhereverTheTensorsLie) {
  if (!cuda_available()) GTEST_SKIP() << "no GPU";
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor all = at::randn({1, 4098}).to(at::Device("cuda:0"), type);
    const at::Tensor x = all.narrow(1, 1, 4097), copy = x.clone();
    EXPECT_TRUE(at::equal(dropout(x, 0.3, kKey), dropout(copy, 0.3, kKey)));
    const at::Tensor sums = at::randn_like(all), sum = sums.narrow(1, 1, 4097), other = sum.clone();
    dropout(x, 0.3, kKey, x, sum);
    dropout(copy, 0.3, kKey, copy, other);
    EXPECT_TRUE(at::equal(sum, other)) << c10::toString(type);
  }
}

}  // namespace
}  // namespace qlora::lora
