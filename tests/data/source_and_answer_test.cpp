// Rows for models with an encoder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/overlength.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::TempDir;
using testing::HasSubstr;

constexpr TokenId kStart = 9, kPad = 8, kEos = ByteTokenizer::kEos;

ModelTokens encoder_decoder() {
  ModelTokens tokens;
  tokens.decoder = DecoderTokens{kStart, kPad};
  return tokens;
}

std::vector<Example> read(const std::string& rows, const std::string& format,
                          const ModelTokens& model = encoder_decoder()) {
  const TempDir dir;
  const DataOptions options;
  return read_dataset({dir.write("rows.jsonl", rows), format, {}}, 0, options, ByteTokenizer(),
                      nullptr, model)
      .examples;
}

template <typename E>
std::string error_of(const std::string& rows, const std::string& format) {
  try {
    read(rows, format);
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

TEST(SourceAndAnswer, TextsGetAnEndOfTextEach) {
  for (const auto& [row, format] :
       {std::pair(R"({"input": "ab", "output": "c"})", "input_output"),
        std::pair(R"({"prompt": "ab", "completion": "c"})", "completion")}) {
    const std::vector<Example> examples = read(row, format);
    ASSERT_EQ(examples.size(), 1u);
    EXPECT_EQ(examples[0].encoded, (std::vector<TokenId>{'a', 'b', kEos}));
    EXPECT_EQ(examples[0].tokens, (std::vector<TokenId>{kStart, 'c', kEos}));
    EXPECT_EQ(examples[0].supervised, (std::vector<uint8_t>{0, 1, 1}));
    EXPECT_EQ(examples[0].length(), 5);
  }
}

TEST(SourceAndAnswer, WithoutAnEncoderInputAndOutputAreOneText) {
  const std::vector<Example> examples =
      read(R"({"input": "ab", "output": "c"})", "input_output", {});
  EXPECT_EQ(examples[0].tokens, (std::vector<TokenId>{'a', 'b', 'c', kEos}));
  EXPECT_TRUE(examples[0].encoded.empty());
}

TEST(SourceAndAnswer, LabelsAreIdsOfTheirOwnAndPaddingWhereNotTrained) {
  const std::vector<Example> examples = read(
      R"({"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "labels": [11, -100, 12, -100]})",
      "pretokenized");
  EXPECT_EQ(examples[0].encoded, (std::vector<TokenId>{5, 6, 7}));
  EXPECT_EQ(examples[0].tokens, (std::vector<TokenId>{kStart, 11, kPad, 12}));
  EXPECT_EQ(examples[0].supervised, (std::vector<uint8_t>{0, 1, 0, 1}));
}

TEST(SourceAndAnswer, RowsWithoutASourceAreRefused) {
  EXPECT_THAT(error_of<ConfigError>(R"({"text": "abc"})", "text"), HasSubstr("has an encoder"));
  EXPECT_THAT(error_of<FormatError>(R"({"input_ids": [5], "labels": [-100]})", "pretokenized"),
              HasSubstr("no token to train"));
  EXPECT_THAT(error_of<FormatError>(R"({"input_ids": [5]})", "pretokenized"), HasSubstr("labels"));
}

TEST(SourceAndAnswer, ADecoderIsGivenEachLabelsPredecessor) {
  std::vector<Example> examples(2);
  examples[0] = {{kStart, 11, kPad, 12}, {0, 1, 0, 1}};
  examples[0].encoded = {5, 6, 7};
  examples[1] = {{kStart, 21, kEos}, {0, 1, 1}};
  examples[1].encoded = {4};
  const MicroBatch batch = make_micro_batch(examples, {0, 1});
  EXPECT_EQ(batch.tokens, (std::vector<TokenId>{kStart, 11, kPad, kStart, 21}));
  EXPECT_EQ(batch.targets, (std::vector<TokenId>{11, kIgnore, 12, 21, kEos}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 3, 5}));
  EXPECT_EQ(batch.encoded, (std::vector<TokenId>{5, 6, 7, 4}));
  EXPECT_EQ(batch.encoded_cu_seqlens, (std::vector<int32_t>{0, 3, 4}));
  EXPECT_EQ(batch.num_tokens(), 9);
  EXPECT_EQ(batch.num_supervised(), 4);
}

TEST(SourceAndAnswer, TheFingerprintCountsSources) {
  std::vector<Example> examples(1);
  examples[0] = {{kStart, 11}, {0, 1}};
  examples[0].encoded = {5};
  const std::string first = examples_fingerprint(examples);
  examples[0].encoded = {6};
  EXPECT_NE(examples_fingerprint(examples), first);
}

// What is left of a source 1, 2, ..., 8 with an answer of two labels.
std::vector<TokenId> shortened(OnOverlength policy, int64_t sequence_length) {
  Example example{{kStart, 11, kEos}, {0, 1, 1}};
  example.encoded = {1, 2, 3, 4, 5, 6, 7, 8};
  DatasetReport report;
  std::vector<Example> kept;
  keep_within_length(example, {policy, sequence_length, -1}, report, kept);
  return kept.empty() ? std::vector<TokenId>() : kept[0].encoded;
}

TEST(SourceAndAnswer, TheSourceIsWhatIsShortened) {
  using enum OnOverlength;
  EXPECT_EQ(shortened(kError, 10).size(), 8u);
  EXPECT_EQ(shortened(kTruncateRight, 7), (std::vector<TokenId>{1, 2, 3, 4, 8}));
  EXPECT_EQ(shortened(kTruncateLeft, 7), (std::vector<TokenId>{4, 5, 6, 7, 8}));
  EXPECT_TRUE(shortened(kDrop, 7).empty());
  EXPECT_THROW(shortened(kError, 7), FormatError);
  EXPECT_THROW(shortened(kSplit, 7), FormatError);
  EXPECT_THROW(shortened(kTruncateRight, 3), FormatError);
}

TEST(SourceAndAnswer, QuestionsAreSourcesWithTheirEnd) {
  const TempDir dir;
  const auto questions = read_prompts_and_answers(
      {dir.write("rows.jsonl", R"({"input": "ab", "output": "c"})"), "input_output", {}}, 0, {},
      ByteTokenizer(), nullptr, encoder_decoder());
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_EQ(questions[0].prompt, (std::vector<TokenId>{'a', 'b', kEos}));
  EXPECT_EQ(questions[0].answer, "c");
}

}  // namespace
}  // namespace qlora::data
