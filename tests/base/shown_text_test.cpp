#include "base/shown_text.h"

#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(ShownText, LeavesTextAsItIs) {
  const std::string text = "line one\n\tZürich, 東京, \U0001F600, U+0080 is \u00A0";
  EXPECT_EQ(shown_text(text), text);
}

TEST(ShownText, ControlCharactersAreSpelledOut) {
  EXPECT_EQ(shown_text("a\x1B[31mred\x7F\r"), "a\\x1B[31mred\\x7F\\x0D");
  EXPECT_EQ(shown_text(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(shown_text("\xC2\x9B"
                       "31m"),
            "\\x9B31m")
      << "the control sequence introducer of C1";
}

TEST(ShownText, BytesThatAreNoUtf8AreReplacedOneByOne) {
  EXPECT_EQ(shown_text("a\xFF"
                       "b\xC3"),
            "a\uFFFDb\uFFFD");
  EXPECT_EQ(shown_text("\xC0\x80"), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(shown_text("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD") << "a surrogate";
  EXPECT_EQ(shown_text("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD") << "beyond U+10FFFF";
}

TEST(ShownText, LongTextKeepsBothEnds) {
  const std::string shown = shown_text("begin" + std::string(100000, 'x') + "end");
  EXPECT_LT(shown.size(), 4000u);
  EXPECT_TRUE(shown.starts_with("beginxxx") && shown.ends_with("xxxend"));
  EXPECT_NE(shown.find("bytes left out"), std::string::npos);
}

TEST(ShownText, ALongListKeepsAllOfItsLinesAndLongLinesTheirEnds) {
  std::string list;
  for (int i = 0; i < 200; ++i) list += "r.yaml:1:1: fault " + std::string(40, 'x') + "\n";
  EXPECT_EQ(shown_text(list), list);
  const std::string shown = shown_text(list + "begin" + std::string(5000, 'y') + "end");
  EXPECT_TRUE(shown.starts_with(list + "beginyyy") && shown.ends_with("yyyend"));
  EXPECT_NE(shown.find("bytes left out"), std::string::npos);
  const std::string lines(1000000, '\n');
  EXPECT_LT(shown_text(lines).size(), 4000u);
}

TEST(ShownText, LongTextIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "\u6771";
  EXPECT_EQ(shown_text(text).find("\uFFFD"), std::string::npos);
}

}  // namespace
}  // namespace qlora
