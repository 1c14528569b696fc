#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/seed.h"

namespace qlora::data {
namespace {

// Examples of 2 to 40 tokens; each has its own token values, so that a token tells its example.
std::vector<Example> make_examples(int64_t count) {
  std::vector<Example> examples;
  for (int64_t i = 0; i < count; ++i) {
    Example example;
    const auto length = 2 + static_cast<int64_t>(uniform_integer(11, static_cast<uint64_t>(i), 39));
    for (int64_t t = 0; t < length; ++t) {
      example.tokens.push_back(static_cast<TokenId>(i * 100 + t));
      example.supervised.push_back(t > length / 2 || t == length - 1);
    }
    examples.push_back(example);
  }
  return examples;
}

LoaderOptions options(bool packing) {
  return {.sequence_length = 64,
          .packing = packing,
          .shuffle = true,
          .micro_batch_size = 3,
          .gradient_accumulation_steps = 2,
          .seed = 5};
}

TEST(MicroBatch, ByHand) {
  std::vector<Example> examples(2);
  examples[0] = {{10, 11, 12}, {0, 0, 1}};
  examples[1] = {{20, 21}, {1, 1}};
  const MicroBatch batch = make_micro_batch(examples, {1, 0});
  EXPECT_EQ(batch.tokens, (std::vector<TokenId>{20, 21, 10, 11, 12}));
  EXPECT_EQ(batch.targets, (std::vector<TokenId>{21, kIgnore, kIgnore, 12, kIgnore}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 0, 1, 2}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 2, 5}));
  EXPECT_EQ(batch.examples, (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(batch.num_supervised(), 2);
}

class LoaderBothModes : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PackedAndNot, LoaderBothModes, testing::Values(true, false));

TEST_P(LoaderBothModes, EachExampleComesExactlyOnceAnEpoch) {
  Loader loader(make_examples(101), options(GetParam()));
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::map<int64_t, int> seen;
    const int64_t steps = loader.steps_in_epoch(epoch);
    for (int64_t step = 0; step < steps; ++step) {
      EXPECT_EQ(loader.position(), (LoaderPosition{epoch, step}));
      for (const MicroBatch& batch : loader.next().micro_batches) {
        for (const int64_t example : batch.examples) ++seen[example];
      }
    }
    EXPECT_EQ(seen.size(), 101u);
    for (const auto& [example, times] : seen) EXPECT_EQ(times, 1) << example;
  }
}

TEST_P(LoaderBothModes, AMicroBatchHoldsItsExamplesUnchangedAndTargetsStayInside) {
  const auto examples = make_examples(101);
  Loader loader(examples, options(GetParam()));
  for (int64_t step = 0; step < loader.steps_in_epoch(0); ++step) {
    const StepWindow window = loader.next();
    int64_t supervised = 0, tokens = 0;
    for (const MicroBatch& batch : window.micro_batches) {
      EXPECT_LE(batch.num_tokens(), 3 * 64);
      ASSERT_EQ(batch.cu_seqlens.size(), batch.examples.size() + 1);
      for (size_t d = 0; d < batch.examples.size(); ++d) {
        const Example& example = examples[static_cast<size_t>(batch.examples[d])];
        const auto begin = static_cast<size_t>(batch.cu_seqlens[d]);
        ASSERT_EQ(batch.cu_seqlens[d + 1] - batch.cu_seqlens[d], example.length());
        for (size_t i = 0; i < example.tokens.size(); ++i) {
          EXPECT_EQ(batch.tokens[begin + i], example.tokens[i]);
          EXPECT_EQ(batch.positions[begin + i], static_cast<int32_t>(i));
          const bool last = i + 1 == example.tokens.size();
          const bool trained = !last && example.supervised[i + 1] != 0;
          EXPECT_EQ(batch.targets[begin + i], trained ? example.tokens[i + 1] : kIgnore);
        }
        supervised += example.num_supervised();
        tokens += example.length();
      }
    }
    EXPECT_EQ(window.num_supervised, supervised);
    EXPECT_EQ(window.num_tokens, tokens);
  }
}

TEST_P(LoaderBothModes, SeekingEqualsReplaying) {
  Loader replayed(make_examples(101), options(GetParam()));
  std::vector<std::pair<LoaderPosition, std::vector<TokenId>>> windows;
  for (int i = 0; i < 60; ++i) {
    const LoaderPosition position = replayed.position();
    windows.emplace_back(position, replayed.next().micro_batches[0].tokens);
  }
  EXPECT_GT(windows.back().first.epoch, 0);
  Loader sought(make_examples(101), options(GetParam()));
  for (size_t i : {size_t{59}, size_t{0}, size_t{31}, size_t{58}, size_t{1}}) {
    sought.seek(windows[i].first);
    EXPECT_EQ(sought.next().micro_batches[0].tokens, windows[i].second);
  }
}

TEST_P(LoaderBothModes, EpochsDifferInOrderUnlessShufflingIsOff) {
  LoaderOptions shuffled = options(GetParam());
  Loader loader(make_examples(101), shuffled);
  const auto first = loader.next().micro_batches[0].examples;
  loader.seek({1, 0});
  EXPECT_NE(loader.next().micro_batches[0].examples, first);

  shuffled.shuffle = false;
  Loader in_order(make_examples(101), shuffled);
  const auto unshuffled = in_order.next().micro_batches[0].examples;
  EXPECT_EQ(unshuffled[0], 0);
  in_order.seek({1, 0});
  EXPECT_EQ(in_order.next().micro_batches[0].examples, unshuffled);
}

TEST(Loader, WithoutPackingASequenceIsOneExampleAndTheLastStepMayBeShort) {
  Loader loader(make_examples(8), options(false));  // 6 sequences a step
  EXPECT_EQ(loader.steps_in_epoch(0), 2);
  StepWindow window = loader.next();
  ASSERT_EQ(window.micro_batches.size(), 2u);
  EXPECT_EQ(window.micro_batches[0].examples.size(), 3u);
  window = loader.next();
  ASSERT_EQ(window.micro_batches.size(), 1u);
  EXPECT_EQ(window.micro_batches[0].examples.size(), 2u);
  EXPECT_EQ(loader.position(), (LoaderPosition{1, 0}));
}

TEST(Loader, PackingFillsSequencesBetterThanHalf) {
  Loader packed(make_examples(500), options(true));
  Loader unpacked(make_examples(500), options(false));
  EXPECT_GT(packed.fill(0), 0.95);
  EXPECT_LT(unpacked.fill(0), 0.5);
}

TEST(Loader, TheEndOfAnEpochIsTheBeginningOfTheNext) {
  Loader loader(make_examples(8), options(false));
  loader.seek({0, 2});
  EXPECT_EQ(loader.position(), (LoaderPosition{1, 0}));
  EXPECT_THROW(loader.seek({0, 3}), Error);
  EXPECT_THROW(loader.seek({-1, 0}), Error);
}

TEST(Loader, SupervisedShareCountsTokensOfAllExamples) {
  std::vector<Example> examples(2);
  examples[0] = {{1, 2, 3, 4}, {1, 0, 0, 1}};  // the first token never counts
  examples[1] = {{1, 2}, {0, 1}};
  const Loader loader(examples, options(true));
  EXPECT_DOUBLE_EQ(loader.supervised_share(), 2.0 / 6.0);
}

TEST(Loader, RefusesWhatItCannotDeal) {
  EXPECT_THROW(Loader({}, options(true)), Error);
  EXPECT_THROW(Loader({Example{{1, 2}, {0, 0}}}, options(true)), Error);
  EXPECT_THROW(Loader({Example{{1, 2}, {1}}}, options(true)), Error);
  EXPECT_THROW(
      Loader({Example{std::vector<TokenId>(65, 1), std::vector<uint8_t>(65, 1)}}, options(true)),
      Error);
  LoaderOptions bad = options(true);
  bad.micro_batch_size = 0;
  EXPECT_THROW(Loader(make_examples(3), bad), Error);
}

}  // namespace
}  // namespace qlora::data
