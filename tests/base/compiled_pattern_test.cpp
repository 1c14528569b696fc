#include "base/compiled_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora {
namespace {

std::string fault_of(const std::string& pattern) {
  try {
    compiled_pattern(pattern);
    return "";
  } catch (const std::regex_error& error) {
    return pattern_fault(pattern, error);
  }
}

TEST(CompiledPattern, ARepetitionOfNothingIsNamed) {
  for (const char* pattern : {"*", "*_proj", "a|*", "(+a)", "(?:*a)", "(?=+a)", "(?!?a)"})
    EXPECT_THAT(fault_of(pattern), testing::HasSubstr("has nothing before it to repeat"))
        << pattern;
  EXPECT_THAT(fault_of("*"), testing::StartsWith("'*' has nothing"));
}

TEST(CompiledPattern, OtherFaultsAreTheLibrarysWords) {
  for (const char* pattern : {"(", "[a", "(a*", "[*"}) {
    EXPECT_NE(fault_of(pattern), "") << pattern;
    EXPECT_THAT(fault_of(pattern), testing::Not(testing::HasSubstr("nothing before"))) << pattern;
  }
  EXPECT_EQ(fault_of("(?:a|b)*[*]\\*?"), "");
}

TEST(CompiledPattern, IsCompiledOnceAndMatchesAsItDidThen) {
  const std::regex* first = &compiled_pattern("layers\\.[0-9]+\\.(up|down)_proj");
  EXPECT_TRUE(std::regex_match("layers.12.up_proj", *first));
  EXPECT_EQ(&compiled_pattern("layers\\.[0-9]+\\.(up|down)_proj"), first);
  EXPECT_FALSE(std::regex_match("layers.x.up_proj", *first));
}

TEST(CompiledPattern, WhatIsNoneIsRefusedEachTime) {
  for (int time = 0; time < 2; ++time) EXPECT_THROW(compiled_pattern("("), std::regex_error);
}

TEST(CompiledPattern, OfAnyNumberOfThemEachIsItself) {
  for (int time = 0; time < 2; ++time)
    for (int i = 0; i < 2500; ++i) {
      const std::string name = "layer" + std::to_string(i);
      EXPECT_TRUE(std::regex_match(name, compiled_pattern(name)));
      EXPECT_FALSE(std::regex_match("layer", compiled_pattern(name)));
    }
}

}  // namespace
}  // namespace qlora
