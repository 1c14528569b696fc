#include "trainer/attention_sample.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace qlora::trainer {
namespace {

const model::AttentionShape kCausal = model::causal_attention(2, 1, 32);

model::AttentionShape windowed(int64_t window) {
  model::AttentionShape shape = kCausal;
  shape.window = window;
  return shape;
}

TEST(MeanKeys, ByHand) {
  EXPECT_DOUBLE_EQ(mean_keys(kCausal, 4), (1 + 2 + 3 + 4) / 4.0);
  EXPECT_DOUBLE_EQ(mean_keys(windowed(2), 4), (1 + 2 + 2 + 2) / 4.0);
  EXPECT_DOUBLE_EQ(mean_keys(windowed(4), 4), mean_keys(kCausal, 4));
  model::AttentionShape both_ways = kCausal;
  both_ways.causal = false;
  EXPECT_DOUBLE_EQ(mean_keys(both_ways, 4), 4);
  // Two heads of 32 numbers, twice, with 2.5 keys, each a multiplication and an addition.
  EXPECT_DOUBLE_EQ(attention_operations(kCausal, 4), 2 * 2 * 2 * 32 * 2.5);
}

// What a token takes where a call takes `a` and a key `b`.
AttentionSample sample(const model::AttentionShape& shape, int64_t length, double a, double b) {
  const double seconds = a + b * mean_keys(shape, length);
  return {length, {seconds, 2 * seconds}};
}

TEST(AttentionGrowth, WhatACallTakesBesideItsKeysDoesNotGrow) {
  constexpr double kCall = 1e-5, kKey = 1e-9;
  const AttentionTime growth = attention_growth(kCausal, sample(kCausal, 128, kCall, kKey),
                                                sample(kCausal, 1024, kCall, kKey), 64, 100'000);
  const double expected = sample(kCausal, 100'000, kCall, kKey).seconds.forward /
                          sample(kCausal, 64, kCall, kKey).seconds.forward;
  EXPECT_NEAR(growth.forward, expected, 1e-6 * expected);
  EXPECT_NEAR(growth.backward, expected, 1e-6 * expected);
  // By the keys alone it would be 1500 times.
  EXPECT_LT(growth.forward, 10);
}

TEST(AttentionGrowth, BehindItsWindowATokenTakesNoLonger) {
  const model::AttentionShape shape = windowed(256);
  const AttentionTime growth = attention_growth(shape, sample(shape, 128, 0, 1e-9),
                                                sample(shape, 1024, 0, 1e-9), 1024, 100'000);
  EXPECT_NEAR(growth.forward, 256.0 / mean_keys(shape, 1024), 2e-3);
}

TEST(AttentionGrowth, SamplesThatContradictThemselvesLeaveTheKeys) {
  const AttentionSample slow = {128, {3e-6, 3e-6}}, fast = {1024, {2e-6, 4e-6}};
  const AttentionTime growth = attention_growth(kCausal, slow, fast, 64, 6400);
  EXPECT_NEAR(growth.forward, mean_keys(kCausal, 6400) / mean_keys(kCausal, 64), 1e-6);
  EXPECT_GE(growth.backward, 1);
  EXPECT_LT(growth.backward, growth.forward);
}

TEST(AttentionGrowth, MeasuredItLiesBetweenNoneAndThatOfTheKeys) {
  model::AttentionShape with_bias = kCausal;
  with_bias.position_bias = with_bias.sinks = true;
  model::AttentionShape by_distance = kCausal;
  by_distance.relative_bias = true;
  for (const model::AttentionShape& shape : {kCausal, windowed(128), with_bias, by_distance})
    for (const at::ScalarType compute : {at::kBFloat16, at::kFloat}) {
      const AttentionTime growth =
          measure_attention_growth(shape, 64, 4096, 1e8, compute, at::kCPU);
      const double keys = mean_keys(shape, 4096) / mean_keys(shape, 64);
      for (const double times : {growth.forward, growth.backward}) {
        EXPECT_GE(times, 1);
        EXPECT_LE(times, keys * (1 + 1e-9));
      }
    }
  EXPECT_EQ(measure_attention_growth(kCausal, 64, 64, 1e8, at::kFloat, at::kCPU).forward, 1);
}

}  // namespace
}  // namespace qlora::trainer
