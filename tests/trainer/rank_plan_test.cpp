#include "trainer/rank_plan.h"

#include <gtest/gtest.h>

#include "distributed/group.h"

namespace qlora::trainer {
namespace {

TEST(RankPlan, OneRankSendsAndKeepsNothing) {
  EXPECT_EQ(sum_buffer_bytes(1000, 1), 0);
  EXPECT_EQ(sum_bytes_sent(1000, 1), 0);
}

// Of 4000 bytes two ranks send half and half, four ranks three quarters and three quarters.
TEST(RankPlan, ASumSendsTwiceWhatIsNotARanksOwnPart) {
  EXPECT_EQ(sum_bytes_sent(1000, 2), 4000);
  EXPECT_EQ(sum_bytes_sent(1000, 4), 6000);
  EXPECT_EQ(sum_buffer_bytes(1000, 4), 2 * 4000);
  // Parts of 334 numbers, the last of which has 332.
  EXPECT_EQ(sum_bytes_sent(1000, 3), 2 * 2 * 334 * 4);
  EXPECT_EQ(sum_buffer_bytes(1000, 3), 2 * 3 * 334 * 4);
}

// 207 million numbers: rank 16 on all linear layers of a model of 70B.
TEST(RankPlan, LongSumsNeedNoLongBuffers) {
  constexpr int64_t kNumbers = 207'093'760, kAtOnce = distributed::Group::kNumbersAtOnce;
  for (const int64_t ranks : {2, 8}) {
    EXPECT_EQ(sum_buffer_bytes(kNumbers, ranks), 2 * kAtOnce * 4);
    EXPECT_EQ(sum_bytes_sent(kNumbers, ranks), 2 * (ranks - 1) * (kNumbers / ranks) * 4);
  }
  EXPECT_LT(sum_buffer_bytes(kNumbers, 2), 70'000'000);
  EXPECT_EQ(sum_buffer_bytes(kAtOnce + 1, 2), sum_buffer_bytes(kAtOnce, 2));
}

TEST(RankPlan, TheSumComesAfterWhatARankComputes) {
  const RankTime time = rank_time(1.5, 8000, 6'000'000, 12e6);
  EXPECT_DOUBLE_EQ(time.sum_seconds, 0.5);
  EXPECT_DOUBLE_EQ(time.seconds_a_step, 2);
  EXPECT_DOUBLE_EQ(time.tokens_a_second, 4000);
  EXPECT_DOUBLE_EQ(rank_time(2, 8000, 6'000'000, 0).seconds_a_step, 2);
}

}  // namespace
}  // namespace qlora::trainer
