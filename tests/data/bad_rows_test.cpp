#include "data/bad_rows.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace qlora::data {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kEmpty = "the field 'output' is empty: nothing to train on; fill it in";

int64_t lines_in(const std::string& text) { return std::ranges::count(text, '\n') + 1; }

TEST(BadRows, NoneThrowNothing) {
  const BadRows bad;
  EXPECT_TRUE(bad.empty());
  EXPECT_FALSE(bad.are_all_alike(0));
  EXPECT_NO_THROW(bad.throw_if_any({"a.jsonl", 3}));
}

TEST(BadRows, OneIsItsPlaceAndReasonAlone) {
  BadRows bad;
  bad.add("a.jsonl:3", kEmpty);
  EXPECT_EQ(bad.to_text({"a.jsonl", 200}), std::string("a.jsonl:3: ") + kEmpty);
  EXPECT_EQ(bad.to_text({"a.jsonl", 1}), std::string("a.jsonl:3: ") + kEmpty);
  EXPECT_THROW(bad.throw_if_any({"a.jsonl", 200}), FormatError);
}

TEST(BadRows, SeveralHaveALineEachAndThenHowToGoOn) {
  BadRows bad;
  bad.add("a.jsonl:3", kEmpty);
  bad.add("a.jsonl:7", "message 1 has the unknown role 'bot'");
  EXPECT_EQ(bad.to_text({"a.jsonl", 200}),
            fmt::format("a.jsonl:3: {}\n"
                        "a.jsonl:7: message 1 has the unknown role 'bot'\n"
                        "2 of the 200 rows of a.jsonl are refused: mend them as their lines say, "
                        "or take them out of the data; none of them is passed over",
                        kEmpty));
  EXPECT_THAT(bad.to_text({"a.jsonl", 64, false}), HasSubstr("2 of the first 64 rows of a.jsonl"));
}

TEST(BadRows, BehindTheFirstTenTheOthersAreCountedByReason) {
  BadRows bad;
  for (int i = 1; i <= 14; ++i) bad.add(fmt::format("a.jsonl:{}", i), kEmpty);
  for (const int tokens : {1043, 77})  // of one kind, which has its line too
    bad.add(fmt::format("a.jsonl:{}", tokens), fmt::format("the row has {} tokens", tokens));
  bad.add("a.jsonl:2000", kEmpty);
  const std::string text = bad.to_text({"a.jsonl", 3000});
  EXPECT_EQ(lines_in(text), 13) << text;
  EXPECT_THAT(text, HasSubstr(std::string("a.jsonl:10: ") + kEmpty));
  EXPECT_THAT(text, Not(HasSubstr("a.jsonl:11")));
  EXPECT_THAT(text,
              HasSubstr("\na.jsonl:1043: the row has 1043 tokens\n"
                        "6 further rows: 5 like a.jsonl:1 (the field 'output' is empty: nothing to "
                        "train on); 1 like a.jsonl:1043 (the row has 1043 tokens)\n"
                        "17 of the 3000 rows"));
}

TEST(BadRows, OneFurtherRowIsOne) {
  BadRows bad;
  for (int i = 1; i <= 11; ++i) bad.add(fmt::format("a.jsonl:{}", i), kEmpty);
  EXPECT_THAT(bad.to_text({"a.jsonl", 20}), HasSubstr("\n1 further row: 1 like a.jsonl:1 ("));
}

TEST(BadRows, AReasonThatAllRowsShareIsToldOnce) {
  BadRows bad;
  for (int i = 1; i <= 64; ++i) bad.add(fmt::format("a.jsonl:{}", i), "set format: alpaca");
  EXPECT_TRUE(bad.are_all_alike(64));
  EXPECT_FALSE(bad.are_all_alike(65));
  EXPECT_EQ(bad.to_text({"a.jsonl", 64, false}),
            "a.jsonl:1: set format: alpaca\n"
            "the same is wrong with all of the first 64 rows of a.jsonl");
  bad.add("a.jsonl:65", "set format: chat");
  EXPECT_FALSE(bad.are_all_alike(65));
}

TEST(BadRows, HoweverManyTheyAreTheTextStaysShort) {
  BadRows bad;
  for (int i = 0; i < 100'000; ++i) {
    std::string letters;  // no two reasons are of one kind
    for (int rest = i; rest > 0; rest /= 26) letters += static_cast<char>('a' + rest % 26);
    bad.add(fmt::format("a.jsonl:{}", i), "the role '" + letters + "' is unknown");
  }
  const std::string text = bad.to_text({"a.jsonl", 200'000});
  EXPECT_LT(lines_in(text), 25) << text;
  EXPECT_THAT(text, HasSubstr("for other reasons\n100000 of the 200000 rows"));
  EXPECT_THAT(text, EndsWith("none of them is passed over"));
}

}  // namespace
}  // namespace qlora::data
