#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/dataset.h"
#include "data/row_files/csv_reader.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/data/read_rows.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using Record = std::vector<std::string>;

std::vector<Record> records_of(const std::string& bytes, char delimiter = ',') {
  const TempDir dir;
  CsvReader reader(io::ByteReader(dir.write("a.csv", bytes)), delimiter);
  std::vector<Record> records;
  for (Record record; reader.next(record);) records.push_back(record);
  return records;
}

std::vector<SourceRow> rows_of(const std::string& bytes, const std::string& format = "alpaca",
                               const std::string& name = "a.csv") {
  const TempDir dir;
  return test::read_rows({dir.write(name, bytes), format, {}});
}

std::string error_of(const std::string& bytes, const std::string& format = "alpaca",
                     const std::string& name = "a.csv") {
  const TempDir dir;
  return test::refusal_of<FormatError>({dir.write(name, bytes), format, {}});
}

TEST(Csv, FieldsEndAtDelimitersAndRecordsAtLineEnds) {
  EXPECT_THAT(records_of("a,b\nc,d\n"), ElementsAre(Record{"a", "b"}, Record{"c", "d"}));
  EXPECT_THAT(records_of("a,b\r\nc,d"), ElementsAre(Record{"a", "b"}, Record{"c", "d"}));
  EXPECT_THAT(records_of("a\rb\r"), ElementsAre(Record{"a"}, Record{"b"}));
  EXPECT_THAT(records_of("a\tb,c\n", '\t'), ElementsAre(Record{"a", "b,c"}));
}

TEST(Csv, AQuotedFieldMayHoldDelimitersLineBreaksAndDoubledQuotes) {
  EXPECT_THAT(records_of("\"a,b\",\"c\r\nd\",\"say \"\"e\"\"\",\"\"\n"),
              ElementsAre(Record{"a,b", "c\r\nd", "say \"e\"", ""}));
  EXPECT_THAT(records_of("\"\"\"\"\n"), ElementsAre(Record{"\""}));
}

TEST(Csv, AQuoteWithinAnUnquotedFieldIsALetter) {
  EXPECT_THAT(records_of("a 5\" pipe,b\n"), ElementsAre(Record{"a 5\" pipe", "b"}));
}

TEST(Csv, EmptyFieldsCountAndEmptyLinesDoNot) {
  EXPECT_THAT(records_of(",\n\n\r\na,\n"), ElementsAre(Record{"", ""}, Record{"a", ""}));
  EXPECT_TRUE(records_of("\n\n").empty());
}

TEST(Csv, ALongFieldIsReadWhole) {
  const std::string text(400000, 'x');
  EXPECT_THAT(records_of("a,\"" + text + "\"\n"), ElementsAre(Record{"a", text}));
}

TEST(Csv, AQuoteThatIsNotClosedNamesWhereItOpens) {
  EXPECT_THAT(error_of("instruction,output\na,b\nc,\"d\ne,f\n"),
              AllOf(HasSubstr("a.csv:3"), HasSubstr("opens column 2 is not closed")));
  EXPECT_THAT(error_of("instruction,output\n\"a\"b,c\n"),
              AllOf(HasSubstr("a.csv:2: column 1 goes on behind its closing quote, with 'b'"),
                    HasSubstr("must be doubled")));
}

TEST(CsvRows, TheFirstLineNamesTheFields) {
  const auto rows = rows_of("\xef\xbb\xbfinstruction,output\r\nq,\"a\n2\"\r\nr,b\r\n\r\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].value.dump(), R"({"instruction":"q","output":"a\n2"})");
  EXPECT_EQ(rows[0].line, 2);
  EXPECT_EQ(rows[1].line, 4);
  EXPECT_EQ(rows[1].index, 1);
  EXPECT_THAT(rows[1].location, HasSubstr("a.csv:4"));
  EXPECT_EQ(rows_of("text\tn\nx,y\t1\n", "text", "a.tsv")[0].value.dump(),
            R"({"text":"x,y","n":"1"})");
}

TEST(CsvRows, ATableOfItsHeadAloneHasNoRows) {
  EXPECT_TRUE(rows_of("instruction,output\n").empty());
  EXPECT_TRUE(rows_of("").empty());
}

TEST(CsvRows, ARaggedRowNamesItsLineAndItsColumns) {
  EXPECT_THAT(
      error_of("instruction,output\na,b\nc\n"),
      AllOf(HasSubstr("a.csv:3"), HasSubstr("must have the 2 columns"), HasSubstr("found 1")));
  EXPECT_THAT(error_of("instruction,output\na,b,c\n"), HasSubstr("found 3"));
}

TEST(CsvRows, AnEmptyCellIsAFieldThatTheRowLacks) {
  const auto rows = rows_of("instruction,input,output\nq,,a\n");
  EXPECT_TRUE(rows[0].value["input"].is_null());
}

TEST(CsvRows, AColumnWithoutANameIsLeftOut) {
  EXPECT_EQ(rows_of(",text\n0,x\n", "text")[0].value.dump(), R"({"text":"x"})");
}

TEST(CsvRows, ListsStandInTheirCellsAsJson) {
  const std::string cell =
      R"("[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a, b""}]")";
  const auto rows = rows_of("id,messages\n7," + cell + "\n", "chat");
  EXPECT_EQ(rows[0].value["messages"][1]["content"], "a, b");
  EXPECT_EQ(rows[0].value["id"], "7");
  const TempDir dir;
  const auto ids = test::read_rows({dir.write("a.csv", "tokens,text\n\"[1, 2]\",\"[3]\"\n"),
                                    "pretokenized",
                                    {{"input_ids", "tokens"}}});
  EXPECT_EQ(ids[0].value.dump(), R"({"tokens":[1,2],"text":"[3]"})");
}

TEST(CsvRows, ACellThatIsNotJsonNamesItsColumn) {
  EXPECT_THAT(error_of("messages\n\"[{'role': 'user'}]\"\n", "chat"),
              AllOf(HasSubstr("a.csv:2: column 'messages': not valid JSON at byte 3 of the cell"),
                    HasSubstr("double quotes")));
}

TEST(CsvRows, TextThatIsNotUtf8NamesItsColumn) {
  EXPECT_THAT(error_of("text\nna\xefve\n", "text"),
              AllOf(HasSubstr("a.csv:2: column 'text': byte 3 of the cell is not UTF-8"),
                    HasSubstr("iconv")));
  EXPECT_THAT(error_of("te\xefxt,b\n", "text"), HasSubstr("the name of column 1 is not UTF-8"));
}

TEST(CsvRows, AHeadThatCannotBeMeantIsRefused) {
  EXPECT_THAT(error_of("text;label\nOnce;1\n", "text"), HasSubstr("divided by semicolons"));
  EXPECT_THAT(error_of("text,label\nOnce,1\n", "text", "a.tsv"), HasSubstr("divided by commas"));
  EXPECT_THAT(error_of("text,label,text\n", "text"),
              HasSubstr("columns 1 and 3 are both called 'text'"));
  EXPECT_THAT(error_of("<!DOCTYPE html><html>", "text"), HasSubstr("web page"));
  EXPECT_THAT(error_of("\xff\xfe" + std::string("t\0e\0", 4), "text"), HasSubstr("UTF-16"));
}

TEST(CsvRows, ATableTrainsAsTheSameRowsInJson) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const auto examples = [&](const std::string& name, const std::string& bytes) {
    return examples_fingerprint(
        read_dataset({dir.write(name, bytes), "completion", {}}, 0, {}, tokenizer, nullptr)
            .examples);
  };
  EXPECT_EQ(examples("a.csv", "prompt,completion\n\"a, \",\"\"\"b\"\"\"\nc ,d\n"),
            examples("a.jsonl",
                     "{\"prompt\": \"a, \", \"completion\": \"\\\"b\\\"\"}\n"
                     "{\"prompt\": \"c \", \"completion\": \"d\"}\n"));
}

}  // namespace
}  // namespace qlora::data
