#include "data/tokenizers/code_set.h"

#include <gtest/gtest.h>

namespace qlora::data {
namespace {

using Ranges = std::vector<CodeSet::Range>;

TEST(CodeSet, RangesThatMeetBecomeOne) {
  const CodeSet set({{'x', 'z'}, {'a', 'c'}, {'b', 'f'}, {'g', 'g'}, {'a', 'a'}});
  EXPECT_EQ(set.ranges(), (Ranges{{'a', 'g'}, {'x', 'z'}}));
  EXPECT_TRUE(set.contains('g'));
  EXPECT_FALSE(set.contains('h'));
  EXPECT_FALSE(set.contains('A'));
  EXPECT_EQ(set, CodeSet({{'a', 'g'}, {'x', 'z'}}));
}

TEST(CodeSet, AComplementHasAllOthers) {
  EXPECT_EQ(CodeSet().complement().ranges(), (Ranges{{0, CodeSet::kLast}}));
  EXPECT_EQ(CodeSet().complement().complement(), CodeSet());
  EXPECT_EQ(CodeSet({{0, 'a'}, {'c', CodeSet::kLast}}).complement(), CodeSet('b'));
}

TEST(CodeSet, AClassLeavesOutSurrogatesAndWhatLiesBehindTheLastCharacter) {
  EXPECT_EQ(class_text(CodeSet({{'a', 'c'}, {0xD000, 0xE001}}), CodeSet::kLast),
            "[\\x{61}-\\x{63}\\x{D000}-\\x{D7FF}\\x{E000}-\\x{E001}]");
  EXPECT_EQ(class_text(CodeSet({{'a', 0x3000}}), 0xFF), "[\\x{61}-\\x{FF}]");
  EXPECT_EQ(class_text(CodeSet({{0xD800, 0xDFFF}}), CodeSet::kLast), "[^\\x{0}-\\x{10FFFF}]");
  EXPECT_EQ(class_text(CodeSet(), 0xFF), "[^\\x{0}-\\x{FF}]");
}

}  // namespace
}  // namespace qlora::data
