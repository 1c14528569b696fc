#include "model/score_rules.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace qlora::model::cpu {
namespace {

// Two heads; the bias of a key is 100 times the head and how far it is behind the query.
class BiasesByDistance : public testing::Test {
 protected:
  static constexpr int64_t kReach = 70, kColumns = 2 * kReach - 1;

  BiasesByDistance() {
    for (int64_t head = 0; head < 2; ++head)
      for (int64_t distance = 1 - kReach; distance < kReach; ++distance)
        table_.push_back(static_cast<float>(100 * head + distance));
    rules_.bias = table_.data();
    rules_.bias_stride = kColumns;
    rules_.reach = kReach;
  }

  std::vector<float> table_;
  ScoreRules rules_{1.0f};
};

TEST_F(BiasesByDistance, OfAQueryGoByTheKeysPosition) {
  for (const int64_t query : {0, 3, 69})
    for (const int64_t key : {0, 5, 69})
      EXPECT_EQ(rules_.bias_of(1, query)[key], static_cast<float>(100 + key - query));
}

// The last block of a document of 70 tokens has 6, so that some of its pairs are of no tokens.
TEST_F(BiasesByDistance, OfABlockAreThoseOfItsQueriesAndKeys) {
  constexpr int64_t kSize = 64;
  float biases[2 * kSize];
  for (const int64_t query : {0, 64})
    for (const int64_t key : {0, 64}) {
      rules_.distances_of_block(1, query, key, kSize, biases);
      for (int64_t i = 0; i < kSize && query + i < kReach; ++i)
        for (int64_t k = 0; k < kSize && key + k < kReach; ++k)
          ASSERT_EQ(biases[kSize - 1 + i - k], rules_.bias_of(1, query + i)[key + k])
              << query + i << ", " << key + k;
    }
}

TEST(ScoreRules, ABiasByPositionIsTheSameForEveryQuery) {
  const std::vector<float> table = {1, 2, 3, 4, 5, 6};
  ScoreRules rules{1.0f};
  EXPECT_EQ(rules.bias_of(1, 0), nullptr);
  rules.bias = table.data();
  rules.bias_stride = 3;
  EXPECT_EQ(rules.bias_of(1, 0)[2], 6);
  EXPECT_EQ(rules.bias_of(1, 2), rules.bias_of(1, 0));
}

}  // namespace
}  // namespace qlora::model::cpu
