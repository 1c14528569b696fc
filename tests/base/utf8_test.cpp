#include "base/utf8.h"

#include <gtest/gtest.h>

namespace qlora {
namespace {

// \u00FC has two bytes, \u6771 three, \U0001F600 four.
const std::string kText = "a\u00FC\u6771\U0001F600";

TEST(Utf8, ABeginningEndsBetweenTwoCharacters) {
  EXPECT_EQ(utf8_beginning(kText, 0), "");
  EXPECT_EQ(utf8_beginning(kText, 1), "a");
  EXPECT_EQ(utf8_beginning(kText, 2), "a");
  EXPECT_EQ(utf8_beginning(kText, 3), "a\u00FC");
  EXPECT_EQ(utf8_beginning(kText, 5), "a\u00FC");
  EXPECT_EQ(utf8_beginning(kText, 9), "a\u00FC\u6771");
  EXPECT_EQ(utf8_beginning(kText, 10), kText);
  EXPECT_EQ(utf8_beginning(kText, 11), kText);
}

TEST(Utf8, AnEndBeginsBetweenTwoCharacters) {
  EXPECT_EQ(utf8_end(kText, 0), "");
  EXPECT_EQ(utf8_end(kText, 3), "");
  EXPECT_EQ(utf8_end(kText, 4), "\U0001F600");
  EXPECT_EQ(utf8_end(kText, 6), "\U0001F600");
  EXPECT_EQ(utf8_end(kText, 7), "\u6771\U0001F600");
  EXPECT_EQ(utf8_end(kText, 10), kText);
}

TEST(Utf8, WhatIsNoUtf8IsCutAllTheSame) {
  const std::string bytes(100, '\x80');
  EXPECT_EQ(utf8_beginning(bytes, 50).size(), 47u);
  EXPECT_EQ(utf8_end(bytes, 50).size(), 47u);
}

TEST(Utf8, WhatIsAroundAPlaceHasItAndSaysWhereItWasCut) {
  const std::string letters = "abcdefghijklmnopqrstuvwxyz";
  EXPECT_EQ(utf8_around(letters, 13, 6), "...klmnop...");
  EXPECT_EQ(utf8_around(letters, 0, 6), "abcdef...");
  EXPECT_EQ(utf8_around(letters, 2, 6), "abcdef...");
  EXPECT_EQ(utf8_around(letters, 24, 6), "...uvwxyz");
  EXPECT_EQ(utf8_around(letters, 26, 6), "...uvwxyz");
  EXPECT_EQ(utf8_around(letters, 26, 26), letters);
  EXPECT_EQ(utf8_around("", 0, 6), "");
  EXPECT_EQ(utf8_around(kText, 4, 5), "...\u6771...");
  EXPECT_EQ(utf8_around(kText, 6, 5), "...\U0001F600");
}

TEST(Utf8, AShortenedTextSaysThatItIs) {
  EXPECT_EQ(shortened_utf8(kText, 4), "a\u00FC...");
  EXPECT_EQ(shortened_utf8(kText, 10), kText);
}

}  // namespace
}  // namespace qlora
