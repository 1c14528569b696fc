#include "base/ordered_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora {
namespace {
using testing::ElementsAre;
using testing::Pair;

TEST(OrderedMap, KeepsTheOrderOfItsKeysAndTheFirstOfTwoAlike) {
  OrderedMap<int> map = {{"b", 1}, {"a", 2}, {"b", 3}};
  map["c"] = 4;
  map["a"] = 5;
  EXPECT_THAT(map, ElementsAre(Pair("b", 1), Pair("a", 5), Pair("c", 4)));
  map.put_first("c", 6);
  EXPECT_THAT(map, ElementsAre(Pair("c", 6), Pair("b", 1), Pair("a", 5)));
  EXPECT_FALSE(map == (OrderedMap<int>{{"a", 5}, {"b", 1}, {"c", 6}}));
}

TEST(OrderedMap, AnotherOrderMattersWhereKeysThatMeetHaveOtherValues) {
  const auto never = [](const std::string&, const std::string&) { return false; };
  const auto always = [](const std::string&, const std::string&) { return true; };
  const OrderedMap<int> map = {{"a", 1}, {"b", 2}, {"c", 2}};
  const OrderedMap<int> alike = {{"a", 1}, {"c", 2}, {"b", 2}};
  const OrderedMap<int> other = {{"b", 2}, {"a", 1}, {"c", 2}};
  EXPECT_TRUE(decide_alike(map, alike, never));
  EXPECT_FALSE(decide_alike(map, other, never));
  EXPECT_FALSE(decide_alike(other, map, never));
  EXPECT_TRUE(decide_alike(map, other, always));
  EXPECT_FALSE(decide_alike(map, OrderedMap<int>{{"a", 1}, {"b", 2}}, always));
  EXPECT_FALSE(decide_alike(map, OrderedMap<int>{{"a", 1}, {"b", 2}, {"c", 3}}, always));
}

}  // namespace
}  // namespace qlora
