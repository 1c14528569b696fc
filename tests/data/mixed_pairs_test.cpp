// Pairs of answers under what mixes data sets and leaves rows out: a pair is chosen, counted and
// dealt as one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/mixture.h"
#include "data/permutation.h"
#include "data/prepare.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// `count` pairs of the source, with answers of so many tokens; the tokens tell them apart.
void append_pairs(std::vector<Example>& examples, int32_t source, int64_t count, size_t chosen,
                  size_t rejected) {
  for (int64_t row = 0; row < count; ++row)
    for (const auto& [side, length] :
         {std::pair(Side::kChosen, chosen), {Side::kRejected, rejected}}) {
      Example example;
      example.tokens.assign(length, static_cast<TokenId>(examples.size()));
      example.supervised.assign(length, 1);
      example.row = row;
      example.source = source;
      example.side = side;
      examples.push_back(example);
    }
}

DataOptions weighted(const std::vector<double>& weights, const std::string& mix_by = "rows") {
  DataOptions options;
  options.mix_by = mix_by;
  for (const double weight : weights) {
    options.train.push_back({"set" + std::to_string(options.train.size()), "preference", {}});
    options.train.back().weight = weight;
  }
  return options;
}

constexpr int64_t kFirst = 7, kSecond = 30;  // pairs of the two sources, of 5 and of 20 tokens
constexpr uint64_t kSeed = 5;

std::vector<Example> two_sources() {
  std::vector<Example> examples;
  append_pairs(examples, 0, kFirst, 2, 3);
  append_pairs(examples, 1, kSecond, 8, 12);
  return examples;
}

Loader pair_loader(std::vector<int64_t> counts, bool packing = true) {
  LoaderOptions options{.sequence_length = 32,
                        .packing = packing,
                        .shuffle = true,
                        .micro_batch_size = 2,
                        .gradient_accumulation_steps = 2,
                        .seed = kSeed};
  options.examples_of_source = std::move(counts);
  return {two_sources(), options};
}

TEST(MixedPairs, WeightsShareOutPairs) {
  std::vector<Example> examples;
  append_pairs(examples, 0, 80, 2, 3);   // 400 tokens
  append_pairs(examples, 1, 20, 8, 12);  // 400 tokens
  EXPECT_THAT(examples_an_epoch(weighted({1, 1}), examples), ElementsAre(50, 50));
  EXPECT_THAT(examples_an_epoch(weighted({3, 1}, "tokens"), examples), ElementsAre(120, 10));
}

TEST(MixedPairs, AnEpochHasTheCountOfEachSourceAndAPairInOneMicroBatch) {
  for (const bool packing : {true, false}) {
    Loader loader = pair_loader({20, 10}, packing);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::map<int64_t, int64_t> times;  // a pair, how often it came
      int64_t of_first = 0, of_windows = 0;
      const int64_t steps = loader.steps_in_epoch(epoch);
      EXPECT_TRUE(packing || steps == 8) << steps;  // 30 pairs, four a step
      for (int64_t step = 0; step < steps; ++step) {
        const StepWindow window = loader.next();
        of_windows += window.num_pairs;
        for (const MicroBatch& batch : window.micro_batches) {
          EXPECT_LE(batch.num_tokens(), 2 * 2 * 32);
          ASSERT_EQ(batch.examples.size(), 2u * static_cast<size_t>(batch.num_pairs));
          for (size_t d = 0; d < batch.examples.size(); d += 2) {
            const int64_t pair = batch.examples[d] / 2;
            EXPECT_EQ(batch.examples[d], 2 * pair);
            EXPECT_EQ(batch.examples[d + 1], 2 * pair + 1);
            ++times[pair];
            of_first += pair < kFirst;
          }
        }
      }
      EXPECT_EQ(of_windows, 30);
      EXPECT_EQ(of_first, 20);
      for (int64_t pair = 0; pair < kFirst; ++pair)
        EXPECT_TRUE(times[pair] >= 20 / kFirst && times[pair] <= 20 / kFirst + 2) << times[pair];
    }
  }
}

TEST(MixedPairs, PairsOfASourceComeEquallyOften) {
  const Loader loader = pair_loader({20, 10});
  std::map<int64_t, int64_t> times;
  // 21 epochs of 20 are 60 passes through the first source, 21 of 10 seven through the second.
  for (int64_t epoch = 0; epoch < 21; ++epoch)
    for (const int64_t index : loader.order_of(epoch)) ++times[index];
  ASSERT_EQ(times.size(), 2u * (kFirst + kSecond));
  for (const auto& [index, count] : times) EXPECT_EQ(count, index < 2 * kFirst ? 60 : 7) << index;
}

TEST(MixedPairs, AResumedRunSeesWhatTheUnbrokenOneDoes) {
  for (const bool packing : {true, false}) {
    Loader unbroken = pair_loader({20, 10}, packing);
    for (int i = 0; i < 25; ++i) {
      Loader resumed = pair_loader({20, 10}, packing);
      resumed.seek(unbroken.position());
      const StepWindow expected = unbroken.next(), found = resumed.next();
      ASSERT_EQ(found.micro_batches.size(), expected.micro_batches.size());
      for (size_t m = 0; m < found.micro_batches.size(); ++m)
        EXPECT_EQ(found.micro_batches[m].examples, expected.micro_batches[m].examples);
    }
  }
}

TEST(MixedPairs, WithoutCountsTheOrderIsThePermutationOfPairs) {
  const Loader loader = pair_loader({});
  const int64_t count = kFirst + kSecond;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    const std::vector<int64_t> order = loader.order_of(epoch);
    ASSERT_EQ(order.size(), 2u * static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t pair = permuted_index(i, count, kSeed, epoch);
      EXPECT_EQ(order[static_cast<size_t>(2 * i)], 2 * pair);
      EXPECT_EQ(order[static_cast<size_t>(2 * i + 1)], 2 * pair + 1);
    }
  }
}

TEST(MixedPairs, FillCountsThePairsThatTheEpochDealsOut) {
  // A pair has a sequence to itself, with room for two answers of 32 tokens.
  EXPECT_DOUBLE_EQ(pair_loader({20, 10}, /*packing=*/false).fill(0),
                   (20.0 * 5 + 10.0 * 20) / (30.0 * 2 * 32));
}

TEST(MixedPairs, TheTextCountsPairs) {
  EXPECT_THAT(mixture_text(weighted({2, 1}), pair_loader({20, 10})),
              AllOf(HasSubstr("mixture by rows: an epoch has 30 pairs, 300 tokens"),
                    HasSubstr("set0: weight 2, 66.7 % of the pairs (20 of 7, each 2.86 times), "
                              "33.3 % of the tokens (100)"),
                    HasSubstr("set1: weight 1, 33.3 % of the pairs (10 of 30, each 0.33 times), "
                              "66.7 % of the tokens (200)")));
}

TEST(MixedPairs, APairOfTwoSourcesIsRefused) {
  std::vector<Example> examples = two_sources();
  examples[2 * kFirst - 1].source = 1;
  EXPECT_THROW(Loader(examples, {}), Error);
}

// ---- rows that are left out

// A prompt of one token; each answer has a token for each byte and one for its end.
std::string pair_row(const std::string& chosen, const std::string& rejected) {
  return R"({"prompt": "p", "chosen": ")" + chosen + R"(", "rejected": ")" + rejected + "\"}\n";
}

DataOptions pair_options(const std::vector<std::string>& paths) {
  DataOptions options;
  for (const std::string& path : paths) options.train.push_back({path, "preference", {}});
  return options;
}

PreparedData prepared(const DataOptions& options) {
  return prepare_datasets(options, ByteTokenizer(), nullptr, 1);
}

TEST(LeftOutPairs, APairStaysIfBothAnswersAreWithinTheBounds) {
  const TempDir dir;
  const std::string rows = pair_row("aaa", "bbb") + pair_row("aaa", "bbbbbbb") +
                           pair_row("aaaaaaa", "bbb") + pair_row("a", "bbb") +
                           pair_row("aaa", "b") + pair_row("aaaaaaa", "b");
  DataOptions options = pair_options({dir.write("a.jsonl", rows)});
  EXPECT_EQ(prepared(options).train.size(), 12u);
  options.train[0].min_tokens = 4;
  options.train[0].max_tokens = 6;
  const PreparedData data = prepared(options);
  ASSERT_EQ(data.train.size(), 2u);
  EXPECT_EQ(data.train[0].side, Side::kChosen);
  EXPECT_EQ(data.train[1].side, Side::kRejected);
  EXPECT_EQ(data.train[1].row, 0);
  const DatasetReport& report = data.train_reports[0];
  EXPECT_EQ(report.rendered, 6);
  EXPECT_EQ(report.filtered, 5);
  EXPECT_EQ(report.examples, 1);
  EXPECT_EQ(report.tokens, 10);
  EXPECT_THAT(to_text(report), HasSubstr("6 rows, 1 pairs, 5 left out by their length"));
}

TEST(LeftOutPairs, APairOutsideOfTheBoundsIsNotTooLong) {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  DataOptions options =
      pair_options({dir.write("a.jsonl", pair_row("aaaaaaaaa", "b") + pair_row("aaa", "bbb"))});
  options.sequence_length = 8;
  EXPECT_THROW(prepared(options), FormatError);
  EXPECT_THROW(read_first_rows(options.train[0], 0, 2, options, tokenizer, nullptr), FormatError);
  options.train[0].min_tokens = 4;  // the rejected answer is too short for it
  EXPECT_EQ(prepared(options).train.size(), 2u);
  EXPECT_NO_THROW(read_first_rows(options.train[0], 0, 2, options, tokenizer, nullptr));
}

TEST(LeftOutPairs, PromptsOfPairsOutsideOfTheBoundsAreLeftOut) {
  const TempDir dir;
  DataOptions options =
      pair_options({dir.write("a.jsonl", pair_row("aaa", "b") + pair_row("aaa", "bbb"))});
  options.train[0].min_tokens = 4;
  const auto kept =
      read_prompts_and_answers(options.train[0], 0, options, ByteTokenizer(), nullptr);
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].row, 1);
}

TEST(LeftOutPairs, MaxRowsCountsPairs) {
  const TempDir dir;
  DataOptions options =
      pair_options({dir.write("a.jsonl", pair_row("a", "b") + pair_row("c", "d") + "no row\n")});
  options.train[0].max_rows = 2;
  const PreparedData data = prepared(options);
  EXPECT_EQ(data.train.size(), 4u);
  EXPECT_EQ(data.train_reports[0].examples, 2);
}

TEST(LeftOutPairs, APairIsRepeatedIfBothAnswersAre) {
  const TempDir dir;
  DataOptions options = pair_options(
      {dir.write("a.jsonl", pair_row("x", "y") + pair_row("x", "z") + pair_row("x", "y")),
       dir.write("b.jsonl", pair_row("y", "x") + pair_row("x", "z") + pair_row("w", "z"))});
  options.deduplicate = true;
  const PreparedData data = prepared(options);
  ASSERT_EQ(data.train.size(), 8u);
  for (size_t i = 0; i < data.train.size(); ++i)
    EXPECT_EQ(data.train[i].side, i % 2 == 0 ? Side::kChosen : Side::kRejected);
  EXPECT_EQ(data.train_reports[0].repeated, 1);
  EXPECT_EQ(data.train_reports[0].examples, 2);
  EXPECT_EQ(data.train_reports[1].repeated, 1);
  EXPECT_EQ(data.train_reports[1].examples, 2);
  EXPECT_EQ(data.train_reports[1].tokens, 4 * 3);
  EXPECT_THAT(to_text(data.train_reports[0]),
              HasSubstr("3 rows, 2 pairs, 1 pairs left out as repeated"));
}

}  // namespace
}  // namespace qlora::data
