#include "data/row_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::TempDir;
using testing::HasSubstr;

std::vector<SourceRow> rows_of(const std::string& bytes, const std::string& name = "a.jsonl",
                               const std::string& format = "chat") {
  const TempDir dir;
  RowSource source({dir.write(name, bytes), format, {}});
  std::vector<SourceRow> all;
  for (;;) {
    std::vector<SourceRow> some = source.next(2);
    if (some.empty()) return all;
    for (SourceRow& row : some) all.push_back(std::move(row));
  }
}

std::string error_of(const std::string& bytes) {
  try {
    rows_of(bytes);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

TEST(RowSource, LinesKeepTheirNumbersAcrossBlankOnes) {
  const auto rows = rows_of("{\"a\": 1}\r\n\n  \n{\"a\": 2}\n{\"a\": 3}");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1].value["a"], 2);
  EXPECT_EQ(rows[1].line, 4);
  EXPECT_EQ(rows[2].index, 2);
  EXPECT_EQ(rows[2].line, 5);
}

TEST(RowSource, AnArrayGivesItsElementsWithTheirLines) {
  const auto rows =
      rows_of("\xef\xbb\xbf\n[\n {\"a\": \"],}\\\"\"},\n\n {\"a\": [1, {\"b\": 2}]},\n 3]\n");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].value["a"], "],}\"");
  EXPECT_EQ(rows[0].line, 3);
  EXPECT_EQ(rows[1].value["a"][1]["b"], 2);
  EXPECT_EQ(rows[1].line, 5);
  EXPECT_EQ(rows[2].value, 3);
  EXPECT_EQ(rows[2].line, 6);
}

TEST(RowSource, KeysKeepTheirOrder) {
  EXPECT_EQ(rows_of(R"({"b": 1, "a": 2})")[0].value.dump(), R"({"b":1,"a":2})");
}

TEST(RowSource, EmptyFilesHaveNoRows) {
  EXPECT_TRUE(rows_of("").empty());
  EXPECT_TRUE(rows_of(" \n\n").empty());
  EXPECT_TRUE(rows_of("[ ]").empty());
  EXPECT_TRUE(rows_of("", "a.txt", "text").empty());
}

TEST(RowSource, ATextFileIsOneRow) {
  const auto rows = rows_of("[one\ntwo", "a.txt", "text");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].value["text"], "[one\ntwo");
}

TEST(RowSource, BadJsonNamesTheLine) {
  EXPECT_THAT(error_of("{\"a\": 1}\n{\"a\": }\n"), HasSubstr("a.jsonl:2: not valid JSON"));
  EXPECT_THAT(error_of("[{\"a\": 1},\n {\"a\" 2}]"), HasSubstr("a.jsonl:2: not valid JSON"));
  EXPECT_THAT(error_of("[1,, 2]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[1,]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[{\"a\": 1}"), HasSubstr("must end with ']'"));
  EXPECT_THAT(error_of("["), HasSubstr("must end with ']'"));
  EXPECT_THAT(error_of("[1] [2]"), HasSubstr("nothing may follow"));
  EXPECT_THAT(error_of("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
}

TEST(RowSource, ARowThatNestsWithoutEndIsRefused) {
  EXPECT_THAT(error_of(std::string(100000, '[')), HasSubstr("must end with"));
  EXPECT_THAT(error_of("{\"a\": " + std::string(100000, '[') + std::string(100000, ']') + "}"),
              HasSubstr("may nest 200 deep"));
}

TEST(RowSource, AFileThatIsNotThereIsTheUsersError) {
  EXPECT_THROW(RowSource({"/nowhere/a.jsonl", "chat", {}}), ConfigError);
  EXPECT_THROW(RowSource({"/", "chat", {}}), ConfigError);
}

}  // namespace
}  // namespace qlora::data
