#include "data/overlength.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"

namespace qlora::data {
namespace {

struct Outcome {
  std::vector<Example> kept;
  DatasetReport report;
};

// Tokens 0, 1, 2, ...; the last `supervised` of them are trained.
Outcome apply(OnOverlength policy, int64_t sequence_length, int length, int supervised) {
  Example example;
  example.tokens.resize(static_cast<size_t>(length));
  std::iota(example.tokens.begin(), example.tokens.end(), 0);
  example.supervised.assign(static_cast<size_t>(length), 0);
  std::fill(example.supervised.end() - supervised, example.supervised.end(), uint8_t{1});
  Outcome outcome;
  keep_within_length(example, {policy, sequence_length, 0}, outcome.report, outcome.kept);
  return outcome;
}

TEST(Overlength, AnExampleThatFitsIsKeptUnderEveryPolicy) {
  for (const auto policy : {OnOverlength::kError, OnOverlength::kDrop, OnOverlength::kTruncateLeft,
                            OnOverlength::kTruncateRight, OnOverlength::kSplit}) {
    const Outcome outcome = apply(policy, 10, 10, 3);
    ASSERT_EQ(outcome.kept.size(), 1u);
    EXPECT_EQ(outcome.kept[0].length(), 10);
    EXPECT_EQ(outcome.report.truncated + outcome.report.split + outcome.report.dropped_overlength,
              0);
  }
}

TEST(Overlength, ALengthThatNoExampleCanHaveIsRefusedUnderEveryPolicy) {
  for (const auto policy : {OnOverlength::kError, OnOverlength::kDrop, OnOverlength::kTruncateLeft,
                            OnOverlength::kTruncateRight, OnOverlength::kSplit})
    for (const int64_t length : {-5, 0, 1}) {
      EXPECT_THROW(apply(policy, length, 3, 3), ConfigError) << length;
      std::vector<Example> kept;
      DatasetReport report;
      EXPECT_THROW(keep_row_within_length({Example{}}, {policy, length, 0}, report, kept),
                   ConfigError);
    }
}

TEST(Overlength, ErrorSaysBothNumbers) {
  try {
    apply(OnOverlength::kError, 10, 11, 3);
    FAIL();
  } catch (const FormatError& e) {
    EXPECT_NE(std::string(e.what()).find("11 tokens, more than data.sequence_length 10"),
              std::string::npos);
  }
}

TEST(Overlength, DropCounts) {
  const Outcome outcome = apply(OnOverlength::kDrop, 10, 11, 3);
  EXPECT_TRUE(outcome.kept.empty());
  EXPECT_EQ(outcome.report.dropped_overlength, 1);
}

TEST(Overlength, TruncatingRightKeepsTheBeginningAndDropsRowsWithoutAnswer) {
  const Outcome kept = apply(OnOverlength::kTruncateRight, 4, 6, 3);
  EXPECT_EQ(kept.kept.at(0).tokens, (std::vector<TokenId>{0, 1, 2, 3}));
  EXPECT_EQ(kept.kept.at(0).num_supervised(), 1);
  EXPECT_EQ(kept.report.truncated, 1);
  const Outcome lost = apply(OnOverlength::kTruncateRight, 4, 8, 3);
  EXPECT_TRUE(lost.kept.empty());
  EXPECT_EQ(lost.report.dropped_unsupervised, 1);
}

TEST(Overlength, TruncatingLeftKeepsTheEndBehindTheBos) {
  const Outcome outcome = apply(OnOverlength::kTruncateLeft, 4, 6, 3);  // token 0 is BOS
  EXPECT_EQ(outcome.kept.at(0).tokens, (std::vector<TokenId>{0, 3, 4, 5}));
  EXPECT_EQ(outcome.kept.at(0).supervised, (std::vector<uint8_t>{0, 1, 1, 1}));
}

TEST(Overlength, SplittingPredictsEveryTokenExactlyOnce) {
  for (int length = 5; length < 40; ++length) {
    const Outcome outcome = apply(OnOverlength::kSplit, 4, length, length);
    std::vector<TokenId> predicted;
    for (const Example& piece : outcome.kept) {
      EXPECT_LE(piece.length(), 4);
      for (size_t i = 1; i < piece.tokens.size(); ++i) {
        if (piece.supervised[i] != 0) predicted.push_back(piece.tokens[i]);
      }
    }
    std::vector<TokenId> expected(static_cast<size_t>(length) - 1);
    std::iota(expected.begin(), expected.end(), 1);
    EXPECT_EQ(predicted, expected) << length;
    const DatasetReport& r = outcome.report;
    EXPECT_EQ(r.examples, 1 - r.split + r.pieces - r.dropped_unsupervised);
  }
}

TEST(Overlength, PiecesWithoutAnAnswerAreDroppedAndCounted) {
  const Outcome outcome = apply(OnOverlength::kSplit, 4, 10, 3);
  EXPECT_EQ(outcome.report.split, 1);
  EXPECT_EQ(outcome.report.pieces, 3);
  EXPECT_EQ(outcome.report.dropped_unsupervised, 2);
  EXPECT_EQ(outcome.kept.size(), 1u);
}

}  // namespace
}  // namespace qlora::data
