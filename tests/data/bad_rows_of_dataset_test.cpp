#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "data/dataset.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/chat_ml.h"
#include "tests/support/error_of.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::error_of;
using test::kChatMl;
using test::TempDir;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

DataOptions data_options() {
  DataOptions options;
  options.sequence_length = 1000;
  return options;
}

std::string chat_row(const std::string& question, const std::string& answer) {
  return R"({"messages": [{"role": "user", "content": ")" + question +
         R"("}, {"role": "assistant", "content": ")" + answer + "\"}]}\n";
}

// Chat rows in which those at `bad` have an empty answer.
std::string chat_rows(int count, const std::set<int>& bad) {
  std::string rows;
  for (int i = 0; i < count; ++i) rows += chat_row("q", bad.contains(i) ? "" : "a");
  return rows;
}

std::string refusal_of_chat(const std::string& path) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  return error_of<FormatError>([&] {
    read_dataset({path, "chat", {}}, 0, data_options(), tokenizer, &chat_template);
  });
}

TEST(BadRowsOfDataset, OneBadRowIsToldWithItsPlaceAndReasonAlone) {
  const TempDir dir;
  const auto path = dir.write("a.jsonl", chat_rows(200, {37}));
  EXPECT_THAT(refusal_of_chat(path),
              AllOf(StartsWith(path + ":38: message 1 is an assistant turn without text"),
                    EndsWith("fill it in or remove the row")));
}

TEST(BadRowsOfDataset, BadRowsAreToldTogetherWhateverTheNumberOfThreads) {
  const TempDir dir;
  std::set<int> bad = {5};
  for (int i = 4500; i < 5000; i += 40) bad.insert(i);  // in another chunk
  const auto path = dir.write("a.jsonl", chat_rows(5000, bad));
  const int threads = omp_get_max_threads();
  std::set<std::string> told;
  for (const int used : {1, 2, 5}) {
    omp_set_num_threads(used);
    told.insert(refusal_of_chat(path));
  }
  omp_set_num_threads(threads);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_THAT(*told.begin(),
              AllOf(StartsWith(path + ":6: message 1"), HasSubstr("\n" + path + ":4501: message 1"),
                    HasSubstr("\n" + path + ":4821: message 1"), Not(HasSubstr(":4861")),
                    HasSubstr("\n4 further rows: 4 like " + path + ":6 ("),
                    HasSubstr("\n14 of the 5000 rows of " + path + " are refused")));
}

TEST(BadRowsOfDataset, BadRowsOfSeveralReasonsAreToldTogether) {
  const TempDir dir;
  const auto path = dir.write("a.jsonl", chat_row("q", "") + chat_row("q", "a") + "{\"x\": 1}\n" +
                                             chat_row("q", std::string(2000, 'x')));
  EXPECT_THAT(refusal_of_chat(path),
              AllOf(HasSubstr(":1: message 1 is an assistant turn without text"),
                    Not(HasSubstr(":2: ")), HasSubstr(":3: format chat needs the field 'messages'"),
                    HasSubstr(":4: the row has 2"), HasSubstr("3 of the 4 rows")));
}

TEST(BadRowsOfDataset, BadRowsOfAnArrayAreNamedByTheirNumbers) {
  const TempDir dir;
  std::string rows = chat_rows(30, {3, 28});
  std::ranges::replace(rows, '\n', ',');
  rows.back() = ']';
  const auto path = dir.write("a.json", "[" + rows + "\n");
  EXPECT_THAT(refusal_of_chat(path), AllOf(HasSubstr(path + ", row 3: message 1"),
                                           HasSubstr(path + ", row 28: message 1")));
}

// As when the format is another: all of a large file would say the same.
TEST(BadRowsOfDataset, WhatIsWrongWithEveryRowIsToldOnceAndEndsTheReading) {
  const TempDir dir;
  std::string rows;
  for (int i = 0; i < 5000; ++i)
    rows += R"({"instruction": "q", "output": "a"})"
            "\n";
  const auto path = dir.write("a.jsonl", rows + "no row\n");
  EXPECT_THAT(refusal_of_chat(path),
              AllOf(StartsWith(path + ":1: format chat needs the field 'messages'"),
                    HasSubstr("set format: alpaca"), Not(HasSubstr("a.jsonl:2")),
                    EndsWith("\nthe same is wrong with all of the first 4096 rows of " + path)));
}

TEST(BadRowsOfDataset, AFaultOfTheFileEndsTheReadingAndIsToldBehindTheBadRowsBeforeIt) {
  const TempDir dir;
  EXPECT_THAT(refusal_of_chat(dir.write("a.jsonl", chat_rows(3, {1}) + "{\"messages\": \n")),
              AllOf(HasSubstr("a.jsonl:4: not valid JSON"), Not(HasSubstr("a.jsonl:2"))));
  const auto path = dir.write("b.jsonl", chat_rows(5000, {1, 2}) + "{\"messages\": \n");
  EXPECT_THAT(refusal_of_chat(path),
              AllOf(StartsWith(path + ":2: "), HasSubstr("2 of the first 4096 rows"),
                    HasSubstr("\n" + path + ":5001: not valid JSON")));
}

TEST(BadRowsOfDataset, BadRowsBehindThoseThatAreNeededAreNotLookedAt) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(kChatMl);
  const auto path = dir.write("a.jsonl", chat_rows(9000, {1, 2, 8500}));
  int64_t taken = 0;
  EXPECT_THAT(error_of<FormatError>([&] {
                read_dataset(
                    {path, "chat", {}}, 0, data_options(), tokenizer, &chat_template, {},
                    [&](const Example&) { ++taken; }, [&] { return taken > 4000; });
              }),
              AllOf(HasSubstr("2 of the first 4096 rows"), Not(HasSubstr("8501"))));
  EXPECT_EQ(taken, 4094);
}

TEST(BadRowsOfDataset, BehindBadRowsSixteenFurtherChunksAreLookedAt) {
  const TempDir dir;
  const auto path = dir.write("a.jsonl", chat_rows(75000, {4100, 9000, 73700, 73800}));
  EXPECT_THAT(refusal_of_chat(path),
              AllOf(StartsWith(path + ":4101: "), HasSubstr("\n" + path + ":9001: "),
                    HasSubstr("\n" + path + ":73701: "), Not(HasSubstr(path + ":73801: ")),
                    HasSubstr("\n3 of the first 73728 rows of " + path)));
}

TEST(BadRowsOfDataset, ATemplateThatIsMissingIsToldBehindTheBadRowsBeforeIt) {
  const TempDir dir;
  const auto path = dir.write("a.jsonl", chat_rows(5, {1, 2, 4}));
  const ByteTokenizer tokenizer;
  EXPECT_THAT(
      error_of<ConfigError>([&] {
        read_dataset({path, "chat", {}}, 0, {}, tokenizer, nullptr);
      }),
      AllOf(StartsWith(path + ":1: "), HasSubstr("no chat template"), Not(HasSubstr("\n"))));
  const auto bad_first = dir.write("b.jsonl", chat_rows(5, {0, 3}));
  EXPECT_THAT(error_of<ConfigError>([&] {
                read_dataset({bad_first, "chat", {}}, 0, {}, tokenizer, nullptr);
              }),
              AllOf(StartsWith(bad_first + ":1: message 1"),
                    HasSubstr("\n" + bad_first + ":2: the rows are conversations"),
                    Not(HasSubstr("b.jsonl:4"))));
}

}  // namespace
}  // namespace qlora::data
