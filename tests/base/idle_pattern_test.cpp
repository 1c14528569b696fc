#include "base/idle_pattern.h"

#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(IdlePattern, IsOneWhoseNamesEarlierOnesTakeOrThatHasNone) {
  const OrderedMap<int> patterns = {{"a", 1}, {"ab", 2}, {"c", 3}, {"z", 4}};
  const auto begins = [](const std::string& pattern, const std::string& name) {
    return name.starts_with(pattern);
  };
  const auto idle = find_idle_patterns(patterns, {"a1", "ab1", "cab"}, begins);
  ASSERT_EQ(idle.size(), 2u);
  EXPECT_EQ(idle[0].pattern, "ab");
  EXPECT_TRUE(idle[0].matches);
  EXPECT_EQ(idle[1].pattern, "z");
  EXPECT_FALSE(idle[1].matches);
  EXPECT_TRUE(
      find_idle_patterns(patterns, {"z", "c", "a", "ab"},
                         [](const auto& pattern, const auto& name) { return pattern == name; })
          .empty());
}

TEST(IdlePattern, IsToldWithItsKey) {
  EXPECT_EQ(idle_pattern_sentence("lora.rank_pattern", "ab", "modules"),
            "lora.rank_pattern: 'ab' decides nothing: the first key that matches does, and earlier "
            "ones take all of its modules; write it before them, or leave it out");
}

}  // namespace
}  // namespace qlora
