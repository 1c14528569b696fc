#include "model/prompt_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace qlora::model {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

void add_all(PromptLookup& lookup, const std::vector<int32_t>& tokens) {
  for (const int32_t token : tokens) lookup.add(token);
}

// After a passage that is quoted from its begin: 1 2 3 4 5 6 7 8 9, other tokens, 1 2 3 4.
PromptLookup quoting(int64_t most) {
  PromptLookup lookup(most);
  add_all(lookup, {1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 30, 1, 2, 3});
  EXPECT_THAT(lookup.guess(9), IsEmpty()) << "a silent guess is to come true first";
  lookup.add(4);
  return lookup;
}

TEST(PromptLookup, GuessesWhatStoodBehindTheSameTokensOnceThatHasComeTrue) {
  PromptLookup lookup = quoting(7);
  EXPECT_THAT(lookup.guess(9), ElementsAre(5));
  lookup.judge(1);
  add_all(lookup, {5, 6});
  EXPECT_THAT(lookup.guess(9), ElementsAre(7, 8, 9));
}

TEST(PromptLookup, GuessesNoMoreThanThereIsRoomForAndThanItMay) {
  PromptLookup lookup = quoting(2);
  EXPECT_THAT(lookup.guess(0), IsEmpty());
  EXPECT_THAT(lookup.guess(1), ElementsAre(5));
  lookup.judge(1);
  add_all(lookup, {5, 6});
  EXPECT_THAT(lookup.guess(9), ElementsAre(7, 8));
  PromptLookup none(0);
  add_all(none, {1, 1, 1, 1, 1, 1});
  EXPECT_THAT(none.guess(9), IsEmpty());
}

TEST(PromptLookup, GuessesAsManyAsCameTrueAndNoneAfterAMissOfTheFirst) {
  PromptLookup lookup = quoting(7);
  lookup.guess(9);
  lookup.judge(1);
  add_all(lookup, {5, 6});
  lookup.guess(9);
  lookup.judge(2);  // 7 and 8; then came 10
  add_all(lookup, {7, 8, 10, 1, 2, 3});
  EXPECT_THAT(lookup.guess(9), ElementsAre(4, 5));
  lookup.judge(0);
  add_all(lookup, {50, 1, 2, 3});
  EXPECT_THAT(lookup.guess(9), IsEmpty());
}

TEST(PromptLookup, TheLatestPlaceCounts) {
  PromptLookup lookup(7);
  add_all(lookup, {1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3});
  lookup.guess(9);
  lookup.add(5);
  EXPECT_THAT(lookup.guess(9), ElementsAre(1));
}

TEST(PromptLookup, MoreOfTheSameTokensCountBeforeALaterPlace) {
  PromptLookup lookup(7);
  add_all(lookup, {1, 2, 3, 4, 5, 9, 3, 4, 6, 0, 1, 2, 3});
  lookup.guess(9);
  lookup.add(4);
  EXPECT_THAT(lookup.guess(9), ElementsAre(5));
}

TEST(PromptLookup, APeriodGoesOnPastTheEndOfTheText) {
  PromptLookup lookup(7);
  add_all(lookup, {8, 9, 8, 9});
  lookup.guess(9);
  lookup.add(8);
  EXPECT_THAT(lookup.guess(9), ElementsAre(9));
  lookup.judge(1);
  add_all(lookup, {9, 8});
  EXPECT_THAT(lookup.guess(9), ElementsAre(9, 8, 9));
}

TEST(PromptLookup, MoreThanWasGuessedCannotComeTrue) {
  PromptLookup lookup = quoting(7);
  lookup.guess(9);
  EXPECT_THROW(lookup.judge(2), Error);
}

}  // namespace
}  // namespace qlora::model
