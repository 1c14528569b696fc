// Parquet and Arrow files, which these tests write with Arrow's own library.
#include <arrow/api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "data/dataset.h"
#include "tests/data/arrow/arrow_files.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/data/packed.h"
#include "tests/data/read_rows.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::array_of;
using test::Columns;
using test::conversations;
using test::lists;
using test::must;
using test::strings;
using test::structs;
using test::TempDir;
using test::write_arrow;
using test::write_parquet;
using testing::AllOf;
using testing::HasSubstr;

std::string error_of(const std::string& path, const std::string& format = "chat") {
  return test::refusal_of<FormatError>({path, format, {}});
}

TEST(Parquet, ListsOfMessagesAreTheRowsThatJsonHas) {
  const TempDir dir;
  const auto rows =
      test::read_rows({write_parquet(dir, "a.parquet", conversations(2)), "chat", {}});
  ASSERT_EQ(rows.size(), 2u);
  // The assistant has no name: null is a member that the row did not have.
  EXPECT_EQ(rows[1].value.dump(), R"({"messages":[{"role":"user","content":"q1","name":"Ines"},)"
                                  R"({"role":"assistant","content":"a1"}]})");
}

TEST(Parquet, RowGroupsFollowOnEachOtherAndNameTheirRows) {
  const TempDir dir;
  const auto rows =
      test::read_rows({write_parquet(dir, "a.parquet", conversations(2500), 1200), "chat", {}});
  ASSERT_EQ(rows.size(), 2500u);
  for (size_t i = 0; i < rows.size(); ++i)
    ASSERT_EQ(rows[i].value["messages"][0]["content"], "q" + std::to_string(i));
  EXPECT_EQ(rows[2499].index, 2499);
  EXPECT_EQ(rows[1199].location, dir / "a.parquet" + ", row group 0, row 1199");
  EXPECT_EQ(rows[2499].location, dir / "a.parquet" + ", row group 2, row 99");
}

TEST(Parquet, EveryTypeWithACounterpartIsAFieldOfTheRow) {
  const TempDir dir;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  arrow::TimestampBuilder times(arrow::timestamp(arrow::TimeUnit::MILLI),
                                arrow::default_memory_pool());
  must(times.Append(0));
  must(times.AppendNull());
  arrow::StringDictionaryBuilder words;
  for (const char* word : {"x", "y"}) must(words.Append(word));
  const auto path = write_parquet(
      dir, "a.parquet",
      {{"text", strings({"a", "ü"})},
       {"large", array_of<arrow::LargeStringBuilder, std::string>({"b", std::nullopt})},
       {"int8", array_of<arrow::Int8Builder, int8_t>({int8_t{-3}, std::nullopt})},
       {"int64", array_of<arrow::Int64Builder, int64_t>({int64_t{1} << 62, 0})},
       {"uint64", array_of<arrow::UInt64Builder, uint64_t>({~uint64_t{0}, 0})},
       {"float", array_of<arrow::FloatBuilder, float>({0.5f, 1.0f})},
       {"double", array_of<arrow::DoubleBuilder, double>({nan, 2.5})},
       {"bool", array_of<arrow::BooleanBuilder, bool>({true, false})},
       {"ids", lists({2, 0}, array_of<arrow::Int32Builder, int32_t>({7, 8}))},
       {"deep",
        structs(
            {{"in", structs({{"n", array_of<arrow::Int32Builder, int32_t>({std::nullopt, 4})}})}})},
       {"time", times.Finish().ValueOrDie()},
       {"word", words.Finish().ValueOrDie()}});
  const auto rows = test::read_rows({path, "text", {}});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].value.dump(),
            R"({"text":"a","large":"b","int8":-3,"int64":4611686018427387904,)"
            R"("uint64":18446744073709551615,"float":0.5,"double":null,"bool":true,"ids":[7,8],)"
            R"("deep":{"in":{}},"time":"1970-01-01 00:00:00.000","word":"x"})");
  EXPECT_EQ(rows[1].value.dump(),
            R"({"text":"ü","large":null,"int8":null,"int64":0,"uint64":0,"float":1.0,)"
            R"("double":2.5,"bool":false,"ids":[],"deep":{"in":{"n":4}},"time":null,"word":"y"})");
}

TEST(Parquet, AColumnOfBytesIsRefusedWhereItIsReadAndElseLeftOut) {
  const TempDir dir;
  const Columns columns = {{"text", strings({"a"})},
                           {"image", array_of<arrow::BinaryBuilder, std::string>({"\x01"})}};
  const auto path = write_parquet(dir, "a.parquet", columns);
  EXPECT_EQ(test::read_rows({path, "text", {}})[0].value.dump(), R"({"text":"a"})");
  EXPECT_THAT(test::refusal_of<FormatError>({path, "text", {{"text", "image"}}}),
              AllOf(HasSubstr("a.parquet: column 'image' has the type binary"),
                    HasSubstr("store it as a string")));
}

TEST(Parquet, APictureBesideAConversationIsRefusedAndAnEmptyColumnOfThemIsNot) {
  const TempDir dir;
  const auto with_bytes = [&](const std::string& name, std::optional<std::string> bytes) {
    Columns columns = conversations(1);
    columns.emplace_back("images",
                         structs({{"bytes", array_of<arrow::BinaryBuilder, std::string>({bytes})},
                                  {"path", strings({std::nullopt})}}));
    return write_parquet(dir, name, columns);
  };
  const test::ByteTokenizer tokenizer;
  const ChatTemplate chat_template(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  const auto read = [&](const std::string& path) {
    return read_dataset({path, "chat", {}}, 0, {}, tokenizer, &chat_template).examples.size();
  };
  EXPECT_EQ(read(with_bytes("none.parquet", std::nullopt)), 1u);
  const std::string path = with_bytes("one.parquet", "\x01\x02");
  EXPECT_EQ(test::read_rows({path, "chat", {}})[0].value["images"].dump(),
            R"({"bytes":"2 bytes"})");
  try {
    read(path);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("one.parquet, row group 0, row 0: "),
                                    HasSubstr("the row's field 'images' is not empty")));
  }
}

TEST(Parquet, ATableTrainsAsTheSameRowsInJson) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const auto fingerprint = [&](const std::string& path) {
    return examples_fingerprint(
        read_dataset({path, "completion", {}}, 0, {}, tokenizer, nullptr).examples);
  };
  EXPECT_EQ(fingerprint(write_parquet(
                dir, "a.parquet",
                {{"prompt", strings({"p ", "q "})}, {"completion", strings({"a", "b"})}})),
            fingerprint(dir.write("a.jsonl",
                                  "{\"prompt\": \"p \", \"completion\": \"a\"}\n"
                                  "{\"prompt\": \"q \", \"completion\": \"b\"}\n")));
}

TEST(Parquet, AWrongRowIsNamedByItsRowGroup) {
  const TempDir dir;
  const auto path = write_parquet(
      dir, "a.parquet", {{"text", strings({"a", "b", "c", std::nullopt})}}, /*rows_a_group=*/3);
  const test::ByteTokenizer tokenizer;
  try {
    read_dataset({path, "text", {}}, 0, {}, tokenizer, nullptr);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("a.parquet, row group 1, row 0: the field 'text' must not be null"));
  }
}

TEST(Parquet, ADamagedFileIsSaidToBeOne) {
  const TempDir dir;
  const std::string bytes =
      test::read_file(write_parquet(dir, "a.parquet", conversations(2000), 1000));
  EXPECT_THAT(error_of(dir.write("cut.parquet", bytes.substr(0, bytes.size() / 2))),
              AllOf(HasSubstr("cut.parquet"), HasSubstr("damaged or not whole")));
  EXPECT_THAT(error_of(dir.write("short.parquet", "PAR1\x15\x04")),
              HasSubstr("damaged or not whole"));
  std::string spoiled = bytes;
  for (size_t i = 4; i < bytes.size() / 4; ++i) spoiled[i] = '\xff';
  EXPECT_THAT(error_of(dir.write("spoiled.parquet", spoiled)),
              AllOf(HasSubstr("spoiled.parquet, row group 0"), HasSubstr("damaged")));
}

TEST(Parquet, TextThatIsNotUtf8IsDamage) {
  const TempDir dir;
  EXPECT_THAT(error_of(write_parquet(dir, "a.parquet", {{"text", strings({"na\xefve"})}}), "text"),
              AllOf(HasSubstr("a.parquet, row group 0"), HasSubstr("UTF8")));
}

TEST(Parquet, AnArchiveOfOneIsRefused) {
  const TempDir dir;
  const std::string bytes = test::read_file(write_parquet(dir, "a.parquet", conversations(1)));
  EXPECT_THAT(error_of(dir.write("a.parquet.gz", test::gzip(bytes))), HasSubstr("unpack it"));
}

TEST(Parquet, ShardsOfSeveralKindsAreOneDataset) {
  const TempDir dir;
  write_parquet(dir, "train-00000-of-00002.parquet", {{"text", strings({"a", "b"})}});
  dir.write("train-00001-of-00002.jsonl", "{\"text\": \"c\"}\n");
  const auto rows = test::read_rows({dir / "train-*", "text", {}});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[2].value["text"], "c");
}

TEST(Arrow, StreamsAndFilesGiveTheirRecordBatches) {
  const TempDir dir;
  for (const bool is_stream : {true, false}) {
    const auto path = write_arrow(dir, is_stream ? "s.arrow" : "f.arrow", conversations(5),
                                  is_stream, /*rows_a_batch=*/2);
    const auto rows = test::read_rows({path, "chat", {}});
    ASSERT_EQ(rows.size(), 5u);
    EXPECT_EQ(rows[4].value["messages"][1]["content"], "a4");
    EXPECT_EQ(rows[4].location, path + ", record batch 2, row 0");
  }
}

TEST(Arrow, AFolderOfSaveToDiskIsReadByItsState) {
  const TempDir dir;
  write_arrow(dir, "data-00000-of-00002.arrow", {{"text", strings({"a"})}}, true);
  write_arrow(dir, "data-00001-of-00002.arrow", {{"text", strings({"b"})}}, true);
  dir.write("dataset_info.json", "{\"features\": {}}");
  dir.write("state.json",
            R"({"_data_files": [{"filename": "data-00000-of-00002.arrow"},
                {"filename": "data-00001-of-00002.arrow"}], "_fingerprint": "0"})");
  const auto rows = test::read_rows({dir.path(), "text", {}});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].value["text"], "b");
}

TEST(Arrow, ADamagedStreamIsSaidToBeOne) {
  const TempDir dir;
  const std::string bytes = test::read_file(write_arrow(dir, "a.arrow", conversations(500), true));
  EXPECT_THAT(error_of(dir.write("cut.arrow", bytes.substr(0, bytes.size() / 2))),
              AllOf(HasSubstr("cut.arrow"), HasSubstr("damaged or not whole")));
  EXPECT_THAT(error_of(dir.write("short.arrow", "ARROW1")), HasSubstr("damaged or not whole"));
}

}  // namespace
}  // namespace qlora::data
