#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/seed.h"

namespace qlora::data {
namespace {

using Sequences = std::vector<std::vector<int64_t>>;

std::vector<int64_t> in_order(size_t count) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

TEST(Packing, FirstFitByHand) {
  // 6 opens a sequence, 5 does not fit and opens another, 4 fills the first, 3 and 2 fill the
  // second.
  EXPECT_EQ(pack_first_fit({6, 5, 4, 3, 2}, in_order(5), 10), (Sequences{{0, 2}, {1, 3, 4}}));
  EXPECT_EQ(pack_first_fit({6, 5, 4, 3, 2}, {4, 3, 2, 1, 0}, 10), (Sequences{{4, 3, 2}, {1}, {0}}));
}

TEST(Packing, PlacesEveryExampleOnceAndNeverOverflows) {
  std::vector<int64_t> lengths;
  for (uint64_t i = 0; i < 5000; ++i) {
    lengths.push_back(1 + static_cast<int64_t>(uniform_integer(3, i, 256)));
  }
  std::vector<int> placed(lengths.size(), 0);
  int64_t sequences = 0, tokens = 0;
  for (const auto& sequence : pack_first_fit(lengths, in_order(lengths.size()), 256)) {
    int64_t length = 0;
    for (const int64_t example : sequence) {
      length += lengths[static_cast<size_t>(example)];
      ++placed[static_cast<size_t>(example)];
    }
    EXPECT_LE(length, 256);
    EXPECT_GE(length, 1);
    ++sequences;
    tokens += length;
  }
  EXPECT_EQ(std::count(placed.begin(), placed.end(), 1), 5000);
  // Lengths uniform up to the whole: first-fit with a window of 64 fills at least 95 % of them.
  EXPECT_GT(static_cast<double>(tokens) / static_cast<double>(sequences * 256), 0.95);
}

TEST(Packing, SettledSequencesStayAsTheyAre) {
  FirstFit packing(256);
  Sequences settled;
  for (int64_t i = 0; i < 5000; ++i) {
    packing.add(i, 1 + static_cast<int64_t>(uniform_integer(3, static_cast<uint64_t>(i), 256)));
    const auto count = static_cast<size_t>(packing.num_settled());
    ASSERT_GE(count, settled.size());
    for (size_t s = settled.size(); s < count; ++s) settled.push_back(packing.sequences()[s]);
  }
  ASSERT_GT(settled.size(), 1000u);
  for (size_t s = 0; s < settled.size(); ++s) EXPECT_EQ(settled[s], packing.sequences()[s]) << s;
}

TEST(Packing, AnExampleLongerThanTheSequenceIsAnError) {
  EXPECT_THROW(pack_first_fit({11}, {0}, 10), Error);
  EXPECT_THROW(pack_first_fit({0}, {0}, 10), Error);
}

}  // namespace
}  // namespace qlora::data
