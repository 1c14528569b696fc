#include "data/permutation.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace qlora::data {
namespace {

std::vector<int64_t> order(int64_t count, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < count; ++i) result.push_back(permuted_index(i, count, seed, epoch));
  return result;
}

TEST(Permutation, IsABijectionForEverySizeUpTo300AndSomeLarger) {
  std::vector<int64_t> sizes = {1023, 1024, 1025, 4095, 4097, 10007, 65537};
  for (int64_t size = 1; size <= 300; ++size) sizes.push_back(size);
  for (const int64_t size : sizes) {
    std::vector<int> seen(static_cast<size_t>(size), 0);
    for (const int64_t index : order(size, 7, 3)) {
      ASSERT_GE(index, 0);
      ASSERT_LT(index, size);
      ++seen[static_cast<size_t>(index)];
    }
    for (const int times : seen) ASSERT_EQ(times, 1) << "size " << size;
  }
}

TEST(Permutation, DependsOnSeedAndEpochAndNothingElse) {
  EXPECT_EQ(order(100, 1, 0), order(100, 1, 0));
  EXPECT_NE(order(100, 1, 0), order(100, 1, 1));
  EXPECT_NE(order(100, 1, 0), order(100, 2, 0));
}

// 64 buckets of start positions against 64 of destinations: each of the 4096 cells expects 16 hits.
// The chi-square statistic of 63 * 63 = 3969 degrees of freedom has standard deviation sqrt(2 *
// 3969) = 89; 5 of them are allowed.
TEST(Permutation, SpreadsNeighboursEvenly) {
  constexpr int64_t kCount = 65536, kBuckets = 64;
  std::vector<double> cells(kBuckets * kBuckets, 0.0);
  const auto permuted = order(kCount, 42, 0);
  for (int64_t i = 0; i < kCount; ++i) {
    const int64_t from = i * kBuckets / kCount,
                  to = permuted[static_cast<size_t>(i)] * kBuckets / kCount;
    cells[static_cast<size_t>(from * kBuckets + to)] += 1.0;
  }
  double statistic = 0.0;
  for (const double hits : cells) statistic += (hits - 16.0) * (hits - 16.0) / 16.0;
  EXPECT_NEAR(statistic, 3969.0, 5 * 89.0);
}

TEST(Permutation, WithinBlocksNothingLeavesItsBlockAndWholeBlocksDoNotDependOnTheNumber) {
  constexpr int64_t kBlock = 10;
  const auto blocks = [](int64_t count, int64_t epoch) {
    std::vector<int64_t> result;
    for (int64_t i = 0; i < count; ++i)
      result.push_back(permuted_within_block(i, count, kBlock, 7, epoch));
    return result;
  };
  const std::vector<int64_t> some = blocks(34, 0), more = blocks(55, 0);
  std::vector<int> seen(34, 0);
  for (int64_t i = 0; i < 34; ++i) {
    const int64_t index = some[static_cast<size_t>(i)];
    ASSERT_EQ(index / kBlock, i / kBlock);
    ++seen.at(static_cast<size_t>(index));
    if (i >= 30) continue;
    EXPECT_EQ(index, more[static_cast<size_t>(i)]);
  }
  for (const int times : seen) EXPECT_EQ(times, 1);
  EXPECT_NE(some, blocks(34, 1));
  EXPECT_THROW(permuted_within_block(0, 5, 0, 7, 0), Error);
}

TEST(Permutation, AnIndexOutsideIsAnError) {
  EXPECT_THROW(permuted_index(5, 5, 0, 0), Error);
  EXPECT_THROW(permuted_index(-1, 5, 0, 0), Error);
  EXPECT_THROW(permuted_index(0, 0, 0, 0), Error);
}

}  // namespace
}  // namespace qlora::data
