#include "base/seed.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/philox.h"

namespace qlora {
namespace {

// Known answer of Philox4x32-10 for counter 0 and key 0, from the generator's reference vectors.
TEST(Philox, GivesTheReferenceWords) {
  const PhiloxWords words = philox_words(0, 0);
  EXPECT_EQ(words.word[0], 0x6627e8d5u);
  EXPECT_EQ(words.word[1], 0xe169c58du);
  EXPECT_EQ(words.word[2], 0xbc57ac4cu);
  EXPECT_EQ(words.word[3], 0x9b00dbd8u);
}

TEST(Seed, KeysDifferByNameNumberAndSeed) {
  const std::set<uint64_t> keys = {random_key(1, "a"), random_key(1, "b"), random_key(2, "a"),
                                   random_key(random_key(1, "a"), uint64_t{0}),
                                   random_key(random_key(1, "a"), uint64_t{1})};
  EXPECT_EQ(keys.size(), 5u);
}

TEST(Seed, NormalHasMeanZeroAndVarianceOne) {
  double sum = 0, squares = 0;
  const int count = 20000;
  for (int i = 0; i < count; ++i) {
    const double x = normal(7, static_cast<uint64_t>(i));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / count, 0, 5 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1, 5 * std::sqrt(2.0 / count));
}

TEST(Seed, UniformIntegersStayBelowTheBound) {
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 300; ++i) seen.insert(uniform_integer(3, i, 7));
  EXPECT_EQ(seen, (std::set<uint64_t>{0, 1, 2, 3, 4, 5, 6}));
}

}  // namespace
}  // namespace qlora
