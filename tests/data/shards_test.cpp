#include "data/shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "data/dataset.h"
#include "data/prepare.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/data/packed.h"
#include "tests/data/read_rows.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string row(const std::string& text) { return "{\"text\": \"" + text + "\"}\n"; }

std::vector<std::string> texts_of(const std::string& path) {
  std::vector<std::string> texts;
  for (const SourceRow& one : test::read_rows({path, "text", {}}))
    texts.push_back(one.value["text"].get<std::string>());
  return texts;
}

std::string error_of(const std::string& path) {
  return test::refusal_of<ConfigError>({path, "text", {}});
}

TEST(Shards, AFolderGivesItsFilesInTheOrderOfTheirNames) {
  const TempDir dir;
  dir.write("b.csv", "text\nthree\n");
  dir.write("a-2.json", "[{\"text\": \"two\"}]");
  dir.write("a-1.jsonl.gz", test::gzip(row("one")));
  dir.write("c.txt", "four");
  for (const char* other : {"README.md", ".hidden.jsonl", "dataset_infos.json", "sub/x.jsonl"})
    dir.write(other, "no rows");
  EXPECT_THAT(texts_of(dir.path()), ElementsAre("one", "two", "three", "four"));
  EXPECT_THAT(texts_of(dir.path() + "/"), ElementsAre("one", "two", "three", "four"));
}

TEST(Shards, APatternGivesWhatItMatches) {
  const TempDir dir;
  for (const char* name : {"train-00001.jsonl", "train-00000.jsonl", "test-00000.jsonl"})
    dir.write(name, row(name));
  EXPECT_THAT(texts_of(dir / "train-*.jsonl"),
              ElementsAre("train-00000.jsonl", "train-00001.jsonl"));
  EXPECT_THAT(texts_of(dir / "t?*-0000[0].jsonl"),
              ElementsAre("test-00000.jsonl", "train-00000.jsonl"));
  EXPECT_THAT(error_of(dir / "valid-*.jsonl"),
              AllOf(HasSubstr("no file matches"), HasSubstr("train-00000.jsonl")));
}

TEST(Shards, AFileIsItselfWhateverItsName) {
  const TempDir dir;
  EXPECT_THAT(texts_of(dir.write("rows[1].jsonl", row("a"))), ElementsAre("a"));
}

TEST(Shards, APathThatIsNoFilesIsAnsweredByWhatItMayBeMeantFor) {
  const TempDir dir;
  const auto refusal = [&](const std::string& path) {
    return test::refusal_of<ConfigError>({dir / path, "text", {}});
  };
  EXPECT_THAT(refusal("https:/host/rows.jsonl"), HasSubstr("nothing is downloaded"));
  EXPECT_THAT(refusal("file:/tmp/rows.jsonl"), HasSubstr("without file://"));
  EXPECT_THAT(refusal("$HOME/rows.jsonl"), HasSubstr("variables are not replaced"));
  EXPECT_THAT(refusal("tatsu-lab/alpaca"), HasSubstr("a data set on the hub"));
  EXPECT_THAT(refusal("none.jsonl"), HasSubstr("cannot be opened"));
  EXPECT_THAT(refusal("none"), HasSubstr("cannot be opened"));
  dir.write("$rows/a.jsonl", R"({"text": "a"})");
  EXPECT_EQ(refusal("$rows/a.jsonl"), "no error");
}

TEST(Shards, RowsAreCountedThroughAllFilesAndPlacedInTheirOwn) {
  const TempDir dir;
  dir.write("a.jsonl", row("one") + row("two"));
  dir.write("b.jsonl", "");
  dir.write("c.jsonl", "\n" + row("three"));
  const auto rows = test::read_rows({dir.path(), "text", {}});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[2].index, 2);
  EXPECT_EQ(rows[2].location, dir / "c.jsonl" + ":2");
  const test::ByteTokenizer tokenizer;
  const Dataset dataset = read_dataset({dir.path(), "text", {}}, 0, {}, tokenizer, nullptr);
  EXPECT_EQ(dataset.report.files, 3);
  EXPECT_EQ(dataset.report.rows, 3);
  EXPECT_THAT(to_text(dataset.report), HasSubstr("3 files, 3 rows"));
}

TEST(Shards, AWrongRowIsPlacedInItsFile) {
  const TempDir dir;
  dir.write("a.jsonl", row("one"));
  dir.write("b.jsonl", row("two") + "{\"text\": 3}\n");
  const test::ByteTokenizer tokenizer;
  try {
    read_dataset({dir.path(), "text", {}}, 0, {}, tokenizer, nullptr);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr("b.jsonl:2: the field 'text' must be a string"));
  }
}

TEST(Shards, AFolderOfSeveralSplitsIsRefused) {
  const TempDir dir;
  dir.write("train-00000.jsonl", row("a"));
  dir.write("test-00000.jsonl", row("b"));
  EXPECT_THAT(error_of(dir.path()),
              AllOf(HasSubstr("holds the splits train and test"), HasSubstr("train*")));
}

TEST(Shards, AFolderWithoutRowsSaysWhatItHolds) {
  const TempDir dir;
  dir.write("data/a.jsonl", row("a"));
  EXPECT_THAT(error_of(dir.path()),
              AllOf(HasSubstr("holds no file of rows"), HasSubstr("its folders are data")));
  dir.write("dataset_dict.json", "{\"splits\": [\"train\", \"test\"]}");
  std::filesystem::create_directory(dir / "train");
  EXPECT_THAT(error_of(dir.path()), HasSubstr("such as " + (dir / "train")));
}

TEST(Shards, WhatSaveToDiskListsIsReadInItsOrder) {
  const TempDir dir;
  dir.write("b.jsonl", row("one"));
  dir.write("a.jsonl", row("two"));
  dir.write("cache.jsonl", row("no shard"));
  dir.write(
      "state.json",
      R"({"_data_files": [{"filename": "b.jsonl"}, {"filename": "a.jsonl"}], "_split": null})");
  EXPECT_THAT(texts_of(dir.path()), ElementsAre("one", "two"));
  dir.write(
      "state.json",
      R"({"_data_files": [{"filename": "b.jsonl"}], "_indices_data_files": [{"filename": "i"}]})");
  EXPECT_THAT(test::refusal_of<FormatError>({dir.path(), "text", {}}),
              HasSubstr("flatten_indices"));
}

TEST(Shards, AnEvaluationOnAFileOfTheTrainedFolderIsToldOf) {
  const TempDir dir;
  dir.write("rows/a.jsonl", row("a"));
  const std::string held_out = dir.write("b.jsonl", row("b"));
  DataOptions options;
  options.train = {{dir / "rows", "text", {}}};
  EXPECT_THAT(trained_on_sentence({dir / "rows/*.jsonl", "text", {}}, options),
              HasSubstr("is evaluated on and trained on"));
  EXPECT_EQ(trained_on_sentence({held_out, "text", {}}, options), "");
}

TEST(Shards, WhatIsAtHandIsThereWithAllItsFiles) {
  const TempDir dir;
  dir.write("a.jsonl", row("a"));
  EXPECT_TRUE(is_at_hand({dir / "a.jsonl", "text", {}}));
  EXPECT_TRUE(is_at_hand({dir.path(), "text", {}}));
  EXPECT_TRUE(is_at_hand({dir / "*.jsonl", "text", {}}));
  EXPECT_FALSE(is_at_hand({dir / "b.jsonl", "text", {}}));
  EXPECT_FALSE(is_at_hand({dir / "*.csv", "text", {}}));
  dir.write("state.json", R"({"_data_files": [{"filename": "moved.arrow"}]})");
  EXPECT_FALSE(is_at_hand({dir.path(), "text", {}}));
}

TEST(Shards, TheTextOfArchivesIsEstimatedLargerThanThem) {
  const TempDir dir;
  dir.write("a.jsonl", std::string(100, ' '));
  EXPECT_EQ(estimated_text_bytes({dir.path(), "text", {}}), 100);
  dir.write("b.jsonl.gz", std::string(10, ' '));
  EXPECT_EQ(estimated_text_bytes({dir.path(), "text", {}}), 140);
  EXPECT_EQ(estimated_text_bytes({"/nowhere/*.jsonl", "text", {}}), 0);
}

}  // namespace
}  // namespace qlora::data
