#include "base/terminal.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace qlora {
namespace {

TEST(Wrapped, LinesBreakBetweenWordsAndContinueIndented) {
  EXPECT_EQ(wrapped("the quick brown fox jumps", 12), "the quick\n  brown fox\n  jumps");
  EXPECT_EQ(wrapped("  in here goes", 9), "  in here\n    goes");
  EXPECT_EQ(wrapped("a    b", 6), "a    b");
}

TEST(Wrapped, AWordThatIsTooLongIsNotBroken) {
  EXPECT_EQ(wrapped("see /a/very/long/path/to/a/file now", 10),
            "see\n  /a/very/long/path/to/a/file\n  now");
}

TEST(Wrapped, LinesThatAreThereStayAndAWidthOfZeroIsNone) {
  EXPECT_EQ(wrapped("one\n\ntwo three\n", 5), "one\n\ntwo\n  three\n");
  EXPECT_EQ(wrapped("one two three", 0), "one two three");
}

TEST(Wrapped, ACharacterIsAColumn) { EXPECT_EQ(wrapped("äöü äöü", 7), "äöü äöü"); }

TEST(Wrapped, AChineseCharacterIsTwo) { EXPECT_EQ(wrapped("数据 数据", 8), "数据\n  数据"); }

TEST(Columns, AreThoseThatATerminalShows) {
  EXPECT_EQ(columns_of_text("ab"), 2U);
  EXPECT_EQ(columns_of_text("äöü"), 3U);
  EXPECT_EQ(columns_of_text("a\u0308"), 1U);
  EXPECT_EQ(columns_of_text("数据"), 4U);
  EXPECT_EQ(columns_of_text("한글かなカナ"), 12U);
  EXPECT_EQ(columns_of_text("🙂"), 2U);
  EXPECT_EQ(columns_of_text("a\xff\xe6"), 3U);
}

TEST(Columns, ATextIsCutBetweenItsCharacters) {
  EXPECT_EQ(beginning_in_columns("数据", 3), "数");
  EXPECT_EQ(beginning_in_columns("äöü", 2), "äö");
  EXPECT_EQ(beginning_in_columns("ab", 5), "ab");
  EXPECT_EQ(without_middle("0123456789", 10), "0123456789");
  EXPECT_EQ(without_middle("0123456789", 9), "012...789");
  EXPECT_EQ(without_middle("0123456789", 3), "012");
  for (size_t columns = 0; columns < 14; ++columns)
    EXPECT_LE(columns_of_text(without_middle("数a据äöü数据", columns)), columns);
}

TEST(TerminalWidth, IsThatOfTheEnvironmentIfItIsANumber) {
  setenv("COLUMNS", "57", 1);
  EXPECT_EQ(terminal_width(stderr), 57U);
  unsetenv("COLUMNS");
}

TEST(TakesColour, NotWhereThereIsNoTerminal) {
  std::FILE* file = std::tmpfile();
  EXPECT_FALSE(takes_colour(file));
  EXPECT_EQ(terminal_width(file), 0U);
  std::fclose(file);
}

}  // namespace
}  // namespace qlora
