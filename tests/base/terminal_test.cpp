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
