#include "base/nearest_word.h"

#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(EditDistance, CountsASwapOfNeighboursOnce) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("q_porj", "q_proj"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(NearestWord, AllowsOneEditForThreeLettersAndLooksPastCaseAndDashes) {
  const std::vector<std::string> known{"q_proj", "v_proj", "down_proj"};
  EXPECT_EQ(nearest_word("Q-Proj", known), "q_proj");
  EXPECT_EQ(nearest_word("x_proj", known), "q_proj");  // the first of equals
  EXPECT_EQ(nearest_word("downproj", known), "down_proj");
  EXPECT_EQ(nearest_word("attention", known), "");
  EXPECT_EQ(nearest_word(std::string(100, 'q'), known), "");
}

}  // namespace
}  // namespace qlora
