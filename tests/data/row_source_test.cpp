#include "data/row_source.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/data/read_rows.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<SourceRow> rows_of(const std::string& bytes, const std::string& name = "a.jsonl",
                               const std::string& format = "chat") {
  const TempDir dir;
  return test::read_rows({dir.write(name, bytes), format, {}});
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

// As pandas' to_json(orient="records") writes it, and pretty-printed.
TEST(RowSource, AnElementOfAnArrayIsNamedByItsNumber) {
  const TempDir dir;
  const auto locations = [&](const std::string& bytes) {
    std::vector<std::string> all;
    for (const SourceRow& row : test::read_rows({dir.write("a.json", bytes), "chat", {}}))
      all.push_back(row.location.substr(dir.path().size() + 1));
    return all;
  };
  EXPECT_THAT(locations("[{\"a\": 1},{\"a\": 2},{\"a\": 3}]\n"),
              ElementsAre("a.json, row 0", "a.json, row 1", "a.json, row 2"));
  EXPECT_THAT(locations("\n[{\"a\": 1}, {\"a\": 2}]"),
              ElementsAre("a.json, row 0", "a.json, row 1"));
  EXPECT_THAT(locations("[\n  {\n    \"a\": 1\n  },\n  {\n    \"a\": 2\n  }\n]\n"),
              ElementsAre("a.json:2, row 0", "a.json:5, row 1"));
}

TEST(LocationOfRow, IsWhereTheRowLies) {
  const TempDir dir;
  const std::string lines = dir.write("a.jsonl", "{\"a\": 1}\n\n{\"a\": 2}\n");
  const std::string array = dir.write("b.json", "[{\"a\": 1}, {\"a\": 2}]");
  EXPECT_EQ(location_of_row({lines, "chat", {}}, 1), lines + ":3");
  EXPECT_EQ(location_of_row({array, "chat", {}}, 1), array + ", row 1");
  EXPECT_EQ(location_of_row({dir.path(), "chat", {}}, 3), array + ", row 1");
  EXPECT_EQ(location_of_row({array, "chat", {}}, 2), array + ", row 2") << "there is none";
  EXPECT_EQ(location_of_row({dir / "gone.json", "chat", {}}, 2), dir / "gone.json" + ", row 2");
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
  EXPECT_THAT(error_of("[{\"a\": 1},\n {\"a\" 2}]"), HasSubstr("a.jsonl:2, row 1: not valid JSON"));
  EXPECT_THAT(error_of("[1,, 2]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[1,]"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[1, 2, {\"a\" 2}]"), HasSubstr("a.jsonl, row 2: not valid JSON"));
  EXPECT_THAT(error_of("[{\"a\": 1}"),
              HasSubstr("a.jsonl, row 0: the array of rows must end with ']'"));
  EXPECT_THAT(error_of("["), HasSubstr("must end with ']'"));
  EXPECT_THAT(error_of("[1] [2]"), HasSubstr("nothing may follow"));
  EXPECT_THAT(error_of("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
}

TEST(RowSource, WhatIsWrongWithJsonIsSaidInOurWords) {
  EXPECT_THAT(
      error_of("{\"a\": 1}\n{\"a\": NaN}\n"),
      HasSubstr("a.jsonl:2: not valid JSON at byte 7 of the row, behind '{\"a\": ': 'NaN}'; "
                "JSON has no NaN"));
  EXPECT_THAT(error_of("{'a': 1}"), HasSubstr("in JSON texts stand in double quotes"));
  EXPECT_THAT(error_of("{\"a\": True}"), HasSubstr("JSON writes true, false and null"));
  EXPECT_THAT(error_of("{\"a\": 1e999}"), HasSubstr("a number is too large"));
  EXPECT_THAT(error_of("{\"a\": 1}\n{\"a\": \"b"), HasSubstr("the row ends before"));
  EXPECT_THAT(error_of("{\"a\": \"\xff\"}"), HasSubstr("byte 8 of the row is not UTF-8"));
  for (const char* text :
       {"{\"a\": NaN}", "{'a': 1}", "{\"a\": 1e999}", "{\"a\": \"\xff\"}", "{\"a\"", "[1,]", "{,}"})
    EXPECT_THAT(error_of(text), Not(HasSubstr("json.exception"))) << text;
}

TEST(RowSource, JsonLinesInATextFileAreNoPlainText) {
  const test::TempDir dir;
  const auto refusal = [&](const std::string& bytes) {
    return test::refusal_of<FormatError>({dir.write("a.txt", bytes), "text", {}});
  };
  EXPECT_THAT(refusal("{\"text\": \"a\"}\n"),
              AllOf(HasSubstr("a.txt holds JSON"), HasSubstr("not plain text")));
  for (const char* text :
       {"Once upon a time", "{ said he", "[1] Note", "<html> is a tag", "<?xml?>"})
    EXPECT_EQ(refusal(text), "no error") << text;
}

TEST(RowSource, AFileOfAnotherKindIsSaidToBeOne) {
  const auto named = [](const std::string& bytes, const std::string& name) {
    try {
      rows_of(bytes, name);
    } catch (const FormatError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(named("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a.jsonl"),
              AllOf(HasSubstr("a.jsonl is a Git LFS pointer"), HasSubstr("git lfs pull")));
  EXPECT_THAT(named(std::string("\x1f\x8b\x08\x00", 4), "a.jsonl.gz"), HasSubstr("gzip"));
  const std::string wide("{\0\"\0a\0\"\0:\0001\0}\0", 14);
  EXPECT_THAT(named("\xff\xfe" + wide, "a.jsonl"), HasSubstr("UTF-16"));
  EXPECT_THAT(named(wide, "a.jsonl"), HasSubstr("UTF-16"));
  EXPECT_THAT(named("\xff\xfe" + wide, "a.txt"), HasSubstr("UTF-16"));
  // A head of two Chinese letters, and a row of one.
  const std::string little("\x2e\x4e,\0\x2d\x4e\n\0\x2e\x4e\n\0", 12);
  const std::string big("\x4e\x2e\0,\x4e\x2d\0\n\x4e\x2e\0\n", 12);
  EXPECT_THAT(named(little, "a.csv"), HasSubstr("iconv -f UTF-16LE -t UTF-8"));
  EXPECT_THAT(named(big, "a.csv"), HasSubstr("iconv -f UTF-16BE -t UTF-8"));
  EXPECT_THAT(named(std::string("\xff\xfe\0\0{\0\0\0", 8), "a.jsonl"), HasSubstr("UTF-32"));
  EXPECT_THAT(named(std::string("{\"a\": \0\0}\n", 10), "a.jsonl"), HasSubstr("NUL bytes"));
  EXPECT_THAT(named("text;label\nOnce;1\n", "a.jsonl"),
              AllOf(HasSubstr("head of a table"), HasSubstr("ends in .csv")));
  EXPECT_THAT(named("Once upon a time\n", "a.txt"), HasSubstr("read with format: text"));
  EXPECT_THAT(named("<!DOCTYPE html><html>", "a.jsonl"), HasSubstr("web page"));
  EXPECT_THAT(named("PK\x03\x04", "a.zip"), HasSubstr("a zip archive; unpack it"));
  EXPECT_THAT(named("a,b\n1,2\n", "a.parquet"),
              AllOf(HasSubstr("not what its name says"), HasSubstr("ends in .csv")));
  const std::string row = R"({"text": "a"})";
  EXPECT_THAT(named(row + "\n", "a.csv"),
              AllOf(HasSubstr("holds JSON"), HasSubstr("not a table"), HasSubstr(".jsonl")));
  const std::string stray = row + "\n{\"text\": \"b" + std::string(1, '\0') + "\"}\n";
  EXPECT_THAT(named(stray, "a.jsonl"), AllOf(HasSubstr("NUL bytes"), Not(HasSubstr("UTF-16"))));
}

TEST(RowSource, OneObjectAroundTheRowsIsNamedWithItsMember) {
  EXPECT_THAT(error_of("{\n \"version\": 1,\n \"data\": [\n  {\"a\": 1},\n  {\"a\": 2}\n ]\n}\n"),
              HasSubstr("a.jsonl is one JSON object; the rows may be in its member 'data', a list "
                        "of 2 objects"));
  EXPECT_THAT(error_of("{\n \"text\": \"a title\",\n \"data\": [\n  {\"a\": 1}\n ]\n}\n"),
              HasSubstr("the rows may be in its member 'data'"));
  EXPECT_THAT(error_of("{\n \"a\": 1\n}\n"), HasSubstr("is one JSON object over several lines"));
  EXPECT_THAT(error_of("{\n \"a\": 1\n}\n{\n \"a\": 2\n}\n"),
              HasSubstr("holds JSON objects over several lines"));
}

// The list of its messages would be rows of one message each.
TEST(RowSource, ARowOverSeveralLinesIsNotTakenForAnObjectAroundTheRows) {
  const auto of_turns = [](const char* name, const char* who, const char* what) {
    return error_of(fmt::format(
        "{{\n \"{}\": [\n  {{\"{}\": \"user\", \"{}\": \"a\"}},\n  {{\"{}\": \"assistant\", "
        "\"{}\": \"b\"}}\n ]\n}}\n",
        name, who, what, who, what));
  };
  EXPECT_THAT(of_turns("messages", "role", "content"),
              AllOf(HasSubstr("a.jsonl is one row of format chat over several lines; write it in "
                              "one line (jq -c .)"),
                    Not(HasSubstr("in its member"))));
  EXPECT_THAT(of_turns("conversations", "from", "value"),
              HasSubstr("is one row of format sharegpt over several lines"));
  EXPECT_THAT(
      of_turns("talk", "role", "content"),
      AllOf(HasSubstr("if that is a row, write it in one line"), Not(HasSubstr("in its member"))));
  EXPECT_THAT(error_of("{\n \"instruction\": \"a\",\n \"output\": \"b\"\n}\n"),
              HasSubstr("is one row of format alpaca over several lines"));
}

TEST(RowSource, TextMayBeAWebPage) {
  EXPECT_EQ(rows_of("<!DOCTYPE html>", "a.txt", "text")[0].value["text"], "<!DOCTYPE html>");
}

TEST(RowSource, AByteOrderMarkIsNoPartOfAText) {
  const auto rows = rows_of("\xef\xbb\xbfone", "a.txt", "text");
  EXPECT_EQ(rows[0].value["text"], "one");
}

TEST(RowSource, ARowThatNestsWithoutEndIsRefused) {
  EXPECT_THAT(error_of(std::string(100000, '[')), HasSubstr("must end with"));
  EXPECT_THAT(error_of("{\"a\": " + std::string(100000, '[') + std::string(100000, ']') + "}"),
              HasSubstr("may nest 200 deep"));
}

TEST(RowSource, AFileThatIsNotThereIsTheUsersError) {
  EXPECT_THROW(RowSource({"/nowhere/a.jsonl", "chat", {}}), ConfigError);
  const TempDir empty;
  EXPECT_THROW(RowSource({empty.path(), "chat", {}}), ConfigError);
  EXPECT_THROW(RowSource({"https://example.org/a.jsonl", "chat", {}}), ConfigError);
}

}  // namespace
}  // namespace qlora::data
