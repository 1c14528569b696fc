#include "data/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "data/prepare.h"
#include "data/seen_rows.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// `count` examples of `length` tokens of the source; the tokens tell them apart.
void append(std::vector<Example>& examples, int32_t source, int64_t count, int64_t length) {
  for (int64_t i = 0; i < count; ++i) {
    Example example;
    example.tokens.assign(static_cast<size_t>(length), static_cast<TokenId>(examples.size()));
    example.supervised.assign(static_cast<size_t>(length), 1);
    example.row = i;
    example.source = source;
    examples.push_back(example);
  }
}

DataOptions weighted(const std::vector<double>& weights, const std::string& mix_by = "rows") {
  DataOptions options;
  options.mix_by = mix_by;
  for (const double weight : weights) {
    options.train.push_back({"set" + std::to_string(options.train.size()), "text", {}});
    options.train.back().weight = weight;
  }
  return options;
}

std::string refusal_of(const DataOptions& options) {
  try {
    options.validate();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Mixture, WithoutWeightsThereIsNone) {
  std::vector<Example> examples;
  append(examples, 0, 3, 2);
  EXPECT_THAT(examples_an_epoch(weighted({0}), examples), IsEmpty());
}

TEST(Mixture, ByRowsAnEpochKeepsItsLengthAndIsSharedByWeight) {
  std::vector<Example> examples;
  append(examples, 0, 80, 4);
  append(examples, 1, 20, 40);
  EXPECT_THAT(examples_an_epoch(weighted({1, 1}), examples), ElementsAre(50, 50));
  EXPECT_THAT(examples_an_epoch(weighted({0.9, 0.1}), examples), ElementsAre(90, 10));
}

TEST(Mixture, ByTokensLongExamplesCountByTheirLength) {
  std::vector<Example> examples;
  append(examples, 0, 80, 5);   // 400 tokens
  append(examples, 1, 20, 20);  // 400 tokens
  EXPECT_THAT(examples_an_epoch(weighted({3, 1}, "tokens"), examples), ElementsAre(120, 10));
}

TEST(Mixture, ASmallWeightStillGivesAnExampleAndADatasetWithoutAnyNone) {
  std::vector<Example> examples;
  append(examples, 0, 10, 2);
  append(examples, 2, 10, 2);
  EXPECT_THAT(examples_an_epoch(weighted({1, 5, 1e-6}), examples), ElementsAre(20, 0, 1));
}

TEST(Mixture, WeightsMustBeThoseOfAllTrainedDatasets) {
  EXPECT_EQ(refusal_of(weighted({0, 0})), "no error");
  EXPECT_EQ(refusal_of(weighted({2, 0.5})), "no error");
  EXPECT_THAT(refusal_of(weighted({1, 0})),
              HasSubstr("data.train[1].weight must be above 0, got 0; give every dataset"));
  EXPECT_THAT(refusal_of(weighted({-1})), HasSubstr("data.train[0].weight must be above 0"));
  EXPECT_THAT(refusal_of(weighted({1}, "bytes")), HasSubstr("data.mix_by must be rows or tokens"));
  DataOptions options = weighted({0});
  options.eval = {{"held_out", "text", {}}};
  options.eval[0].weight = 1;
  EXPECT_THAT(refusal_of(options), HasSubstr("data.eval[0].weight has no meaning"));
  options = weighted({0});
  options.train[0].max_rows = -1;
  EXPECT_THAT(refusal_of(options), HasSubstr("data.train[0].max_rows must not be negative"));
  options = weighted({0});
  options.train[0].min_tokens = 9;
  options.train[0].max_tokens = 8;
  EXPECT_THAT(refusal_of(options), HasSubstr("max_tokens must be at least min_tokens, which is 9"));
}

// ---- what the loader makes of it

constexpr int64_t kFirst = 7, kSecond = 30;  // examples of the two sources

Loader mixed_loader(std::vector<int64_t> counts, bool packing = true, uint64_t seed = 5) {
  std::vector<Example> examples;
  append(examples, 0, kFirst, 3);
  append(examples, 1, kSecond, 9);
  LoaderOptions options{.sequence_length = 32,
                        .packing = packing,
                        .shuffle = true,
                        .micro_batch_size = 2,
                        .gradient_accumulation_steps = 2,
                        .seed = seed};
  options.examples_of_source = std::move(counts);
  return {std::move(examples), options};
}

std::map<int64_t, int64_t> times_in_epochs(const Loader& loader, int64_t epochs) {
  std::map<int64_t, int64_t> times;
  for (int64_t epoch = 0; epoch < epochs; ++epoch)
    for (const int64_t index : loader.order_of(epoch)) ++times[index];
  return times;
}

TEST(MixedLoader, EachEpochHasTheCountOfEachSource) {
  const Loader loader = mixed_loader({20, 10});
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    const std::vector<int64_t> order = loader.order_of(epoch);
    EXPECT_EQ(order.size(), 30u);
    EXPECT_EQ(std::ranges::count_if(order, [](int64_t index) { return index < kFirst; }), 20);
  }
}

TEST(MixedLoader, ExamplesOfASourceComeEquallyOften) {
  const Loader loader = mixed_loader({20, 10});
  const auto one = times_in_epochs(loader, 1);
  for (int64_t index = 0; index < kFirst; ++index) {
    EXPECT_GE(one.at(index), 20 / kFirst);
    EXPECT_LE(one.at(index), 20 / kFirst + 1);
  }
  // 7 epochs of 20 are 20 passes through the first source, 3 of 10 one through the second.
  const auto seven = times_in_epochs(loader, kFirst), three = times_in_epochs(loader, 3);
  for (int64_t index = 0; index < kFirst; ++index) EXPECT_EQ(seven.at(index), 20);
  for (int64_t index = kFirst; index < kFirst + kSecond; ++index) EXPECT_EQ(three.at(index), 1);
}

TEST(MixedLoader, TheOrderFollowsFromSeedAndEpoch) {
  const Loader loader = mixed_loader({20, 10});
  EXPECT_EQ(loader.order_of(2), mixed_loader({20, 10}).order_of(2));
  EXPECT_NE(loader.order_of(2), loader.order_of(3));
  EXPECT_NE(loader.order_of(2), mixed_loader({20, 10}, true, 6).order_of(2));
}

TEST(MixedLoader, AResumedRunSeesWhatTheUnbrokenOneDoes) {
  for (const bool packing : {true, false}) {
    Loader unbroken = mixed_loader({20, 10}, packing);
    for (int i = 0; i < 25; ++i) {
      Loader resumed = mixed_loader({20, 10}, packing);
      resumed.seek(unbroken.position());
      const StepWindow expected = unbroken.next(), found = resumed.next();
      ASSERT_EQ(found.micro_batches.size(), expected.micro_batches.size());
      for (size_t m = 0; m < found.micro_batches.size(); ++m) {
        EXPECT_EQ(found.micro_batches[m].tokens, expected.micro_batches[m].tokens);
        EXPECT_EQ(found.micro_batches[m].examples, expected.micro_batches[m].examples);
      }
      EXPECT_EQ(resumed.position(), unbroken.position());
    }
  }
}

TEST(MixedLoader, FillCountsWhatTheEpochDealsOut) {
  const Loader loader = mixed_loader({20, 10}, /*packing=*/false);
  EXPECT_DOUBLE_EQ(loader.fill(0), (20.0 * 3 + 10.0 * 9) / (30.0 * 32));
}

TEST(MixedLoader, CountsMustFitTheSources) {
  EXPECT_THROW(mixed_loader({20}), Error);
  EXPECT_THROW(mixed_loader({0, 0}), Error);
  EXPECT_THROW(mixed_loader({-1, 2}), Error);
}

TEST(Mixture, TheTextSaysWhatAnEpochDealsOut) {
  const DataOptions options = weighted({2, 1});
  const std::string text = mixture_text(options, mixed_loader({20, 10}));
  EXPECT_THAT(text, AllOf(HasSubstr("mixture by rows: an epoch has 30 examples, 150 tokens"),
                          HasSubstr("set0: weight 2, 66.7 % of the examples (20 of 7, each 2.86 "
                                    "times), 40.0 % of the tokens (60)"),
                          HasSubstr("set1: weight 1, 33.3 % of the examples (10 of 30, each 0.33 "
                                    "times), 60.0 % of the tokens (90)")));
}

// ---- rows that are left out

std::string completions(int first, int count) {
  std::string rows;
  for (int i = first; i < first + count; ++i)
    rows += fmt::format("{{\"prompt\": \"p \", \"completion\": \"{}\"}}\n", i);
  return rows;
}

DataOptions completion_options(const std::vector<std::string>& paths) {
  DataOptions options;
  for (const std::string& path : paths) options.train.push_back({path, "completion", {}});
  return options;
}

PreparedData prepared(const DataOptions& options) {
  return prepare_datasets(options, test::ByteTokenizer(), nullptr, 1);
}

TEST(LeftOutRows, MaxRowsReadsTheFirstOnes) {
  const TempDir dir;
  // The fourth row is never read, or it would be refused.
  DataOptions options = completion_options({dir.write("a.jsonl", completions(10, 3) + "no row\n")});
  options.train[0].max_rows = 3;
  const PreparedData data = prepared(options);
  EXPECT_EQ(data.train.size(), 3u);
  EXPECT_EQ(data.train_reports[0].rows, 3);
}

TEST(LeftOutRows, BoundsOfLengthAreCounted) {
  const TempDir dir;
  DataOptions options = completion_options({dir.write("a.jsonl", completions(8, 94))});
  const PreparedData all = prepared(options);  // 2 of one digit, 90 of two, 2 of three
  std::set<int64_t> lengths;
  for (const ExampleView& example : all.train) lengths.insert(example.length());
  ASSERT_EQ(lengths.size(), 3u);
  options.train[0].min_tokens = options.train[0].max_tokens = *std::next(lengths.begin());
  const PreparedData data = prepared(options);
  EXPECT_EQ(data.train.size(), 90u);
  EXPECT_EQ(data.train_reports[0].filtered, 4);
  EXPECT_THAT(to_text(data.train_reports[0]), HasSubstr("4 left out by their length"));
}

TEST(LeftOutRows, ARowBeyondMaxTokensIsNotTooLong) {
  const TempDir dir;
  const std::string longer =
      R"({"prompt": "p ", "completion": ")" + std::string(200, 'x') + "\"}\n";
  DataOptions options = completion_options({dir.write("a.jsonl", longer + completions(10, 3))});
  options.sequence_length = 100;
  EXPECT_THROW(prepared(options), FormatError);
  options.train[0].max_tokens = 100;
  EXPECT_EQ(prepared(options).train.size(), 3u);
}

TEST(LeftOutRows, RepeatedOnesAreFoundAcrossDatasets) {
  const TempDir dir;
  DataOptions options =
      completion_options({dir.write("a.jsonl", completions(10, 3) + completions(11, 1)),
                          dir.write("b.jsonl", completions(12, 4))});
  EXPECT_EQ(prepared(options).train.size(), 8u);
  options.deduplicate = true;
  const PreparedData data = prepared(options);
  EXPECT_EQ(data.train.size(), 6u);
  EXPECT_EQ(data.train_reports[0].repeated, 1);
  EXPECT_EQ(data.train_reports[1].repeated, 1);
  EXPECT_EQ(data.train_reports[1].examples, 3);
  int64_t tokens = 0;
  for (const ExampleView& example : data.train)
    tokens += example.source == 1 ? example.length() : 0;
  EXPECT_EQ(data.train_reports[1].tokens, tokens);
  EXPECT_EQ(data.train_reports[1].end_of_turns, 3);
  EXPECT_THAT(to_text(data.train_reports[0]), HasSubstr("1 rows left out as repeated"));
}

TEST(LeftOutRows, ADatasetOfNothingButRepetitionsIsToldOfAndTheRestIsTrained) {
  const TempDir dir;
  DataOptions options = completion_options(
      {dir.write("a.jsonl", completions(10, 3)), dir.write("b.jsonl", completions(10, 3))});
  options.deduplicate = true;
  const PreparedData data = prepared(options);
  EXPECT_EQ(data.train.size(), 3u);
  EXPECT_EQ(data.train_reports[1].examples, 0);
  EXPECT_THAT(data.warnings, testing::Contains(AllOf(HasSubstr("b.jsonl: nothing of it is trained"),
                                                     HasSubstr("3 of 3 rows"))));
  EXPECT_THAT(data.warnings, testing::Not(testing::Contains(HasSubstr("supervised end-of-turn"))));
}

TEST(SeenRows, PiecesOfARowAreComparedTogether) {
  std::vector<Example> examples;
  append(examples, 0, 2, 3);
  examples[1].row = 0;  // two pieces of one row
  const std::vector<Example> pieces = examples;
  examples.insert(examples.end(), {pieces[0], pieces[0], pieces[1]});
  examples[2].row = 1;  // the first piece alone is another row
  examples[3].row = examples[4].row = 2;
  SeenRows seen;
  Examples list(examples);
  EXPECT_EQ(seen.take_out_repeated(list), 1);
  EXPECT_EQ(list.size(), 3u);
  EXPECT_EQ(list[2].row, 1);
}

}  // namespace
}  // namespace qlora::data
