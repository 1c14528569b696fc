// Runs of so many steps that read the first rows alone: the steps are those of all rows.
#include "data/needed_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/seed.h"
#include "data/loader.h"
#include "data/prepare.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::TempDir;
using testing::HasSubstr;
using testing::Not;

constexpr int kRows = 20000;
constexpr int64_t kSteps = 6, kSequencesAStep = 4;
constexpr uint64_t kSeed = 7;

// Rows of 3 to 40 tokens, each another text.
std::string completions(int count) {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    const auto length = static_cast<size_t>(uniform_integer(3, static_cast<uint64_t>(i), 30));
    rows += fmt::format("{{\"prompt\": \"{} \", \"completion\": \"{}\"}}\n", i,
                        std::string(1 + length, 'a'));
  }
  return rows;
}

std::string pairs(int count) {
  std::string rows;
  for (int i = 0; i < count; ++i)
    rows += fmt::format(
        "{{\"prompt\": \"{} \", \"chosen\": \"{}\", \"rejected\": \"no\"}}\n", i,
        std::string(1 + static_cast<size_t>(uniform_integer(3, static_cast<uint64_t>(i), 30)),
                    'a'));
  return rows;
}

LoaderOptions loader_options(const DataOptions& options) {
  LoaderOptions loader;
  loader.sequence_length = options.sequence_length;
  loader.packing = options.packing;
  loader.shuffle = options.shuffle;
  loader.shuffle_block = options.shuffle_block;
  loader.micro_batch_size = 2;
  loader.gradient_accumulation_steps = kSequencesAStep / 2;
  loader.seed = kSeed;
  return loader;
}

// Tokens, targets and examples of the first steps, and where the loader then stands.
std::vector<int64_t> dealt(const DataOptions& options, const PreparedData& data, int64_t steps) {
  Loader loader(data.train, loader_options(options));
  std::vector<int64_t> all;
  for (int64_t step = 0; step < steps; ++step)
    for (const MicroBatch& batch : loader.next().micro_batches) {
      all.insert(all.end(), batch.tokens.begin(), batch.tokens.end());
      all.insert(all.end(), batch.targets.begin(), batch.targets.end());
      all.insert(all.end(), batch.examples.begin(), batch.examples.end());
    }
  all.push_back(loader.position().epoch);
  all.push_back(loader.position().step_in_epoch);
  return all;
}

NeededRows needed(int64_t steps) { return {steps * kSequencesAStep, 0, kSeed}; }

class FirstRows : public testing::Test {
 protected:
  FirstRows() {
    options_.train = {{dir_.write("rows.jsonl", completions(kRows)), "completion", {}}};
    options_.sequence_length = 64;
    options_.shuffle_block = 500;
  }

  PreparedData all_rows() const { return prepare_datasets(options_, tokenizer_, nullptr, kSeed); }
  PreparedData first_rows(const NeededRows& rows) const {
    return prepare_datasets(options_, tokenizer_, nullptr, kSeed, {}, &rows);
  }

  void expect_same_steps(const std::string& what) const {
    SCOPED_TRACE(what);
    const PreparedData all = all_rows(), first = first_rows(needed(kSteps));
    EXPECT_FALSE(all.ends_early());
    EXPECT_TRUE(first.ends_early());
    EXPECT_LT(first.train.size(), all.train.size() / 2);
    EXPECT_EQ(dealt(options_, first, kSteps), dealt(options_, all, kSteps));
    EXPECT_EQ(first.fingerprint(), examples_fingerprint(all.train, 0, first.train.size()));
  }

  const TempDir dir_;
  const ByteTokenizer tokenizer_;
  DataOptions options_;
};

TEST_F(FirstRows, DealTheStepsOfAllRows) {
  for (const bool packing : {true, false}) {
    options_.packing = packing;
    options_.shuffle = true;
    for (const int64_t block : {1, 500, 4096, 5000}) {
      options_.shuffle_block = block;
      expect_same_steps(fmt::format("packing {}, blocks of {}", packing, block));
    }
    options_.shuffle = false;
    options_.shuffle_block = 0;
    expect_same_steps(fmt::format("packing {}, in order", packing));
  }
}

TEST_F(FirstRows, OfPairsKeepTheTwoAnswersTogether) {
  options_.train = {{dir_.write("pairs.jsonl", pairs(kRows)), "preference", {}}};
  for (const bool packing : {true, false}) {
    options_.packing = packing;
    expect_same_steps(fmt::format("packing {}", packing));
  }
}

TEST_F(FirstRows, AreTheSameInTheCache) {
  const std::string plain = first_rows(needed(kSteps)).fingerprint();
  options_.cache = "true";
  options_.cache_dir = dir_ / "cache";
  for (const char* what : {"made", "hit"}) {
    const PreparedData data = first_rows(needed(kSteps));
    ASSERT_EQ(data.cache_notes.size(), 1u);
    EXPECT_THAT(data.cache_notes[0], HasSubstr(what));
    EXPECT_TRUE(data.ends_early());
    EXPECT_EQ(data.fingerprint(), plain);
  }
  EXPECT_FALSE(all_rows().ends_early());  // another entry
}

TEST_F(FirstRows, WhatStandsBehindThemIsNotLookedAt) {
  options_.train[0].path = dir_.write("more.jsonl", completions(kRows) + "no row\n");
  EXPECT_THAT(to_text(first_rows(needed(kSteps)).train_reports[0]), HasSubstr("were not read"));
  EXPECT_THROW(all_rows(), FormatError);
}

TEST_F(FirstRows, AreAllRowsWhereTheStepsGoBeyondTheEnd) {
  const PreparedData all = all_rows(), first = first_rows(needed(1000000));
  EXPECT_FALSE(first.ends_early());
  EXPECT_EQ(first.fingerprint(), all.fingerprint());
  EXPECT_THAT(to_text(first.train_reports[0]), Not(HasSubstr("were not read")));
}

TEST_F(FirstRows, OfAFewAreAllOfThem) {
  options_.train[0].path = dir_.write("few.jsonl", completions(300));
  options_.shuffle_block = 50;
  const PreparedData first = first_rows(needed(1));
  EXPECT_FALSE(first.ends_early());
  EXPECT_EQ(first.train.size(), 300u);
}

TEST_F(FirstRows, AreNoFewerThanTheRunBeganWith) {
  NeededRows rows = needed(1);
  const size_t few = first_rows(rows).train.size();
  rows.examples = static_cast<int64_t>(few) + 1;
  EXPECT_GT(first_rows(rows).train.size(), few);
}

TEST_F(FirstRows, AreNotEnoughWhereAnythingAsksForAll) {
  EXPECT_TRUE(deals_first_rows_first(options_));
  const auto reads_all = [&](const auto& change) {
    DataOptions changed = options_;
    change(changed);
    return !deals_first_rows_first(changed);
  };
  EXPECT_TRUE(reads_all([](DataOptions& o) { o.shuffle_block = 0; }));
  EXPECT_TRUE(reads_all([](DataOptions& o) { o.deduplicate = true; }));
  EXPECT_TRUE(reads_all([](DataOptions& o) { o.eval_fraction = 0.1; }));
  EXPECT_TRUE(reads_all([](DataOptions& o) { o.train.push_back(o.train[0]); }));
  EXPECT_TRUE(reads_all([](DataOptions& o) { o.train[0].weight = 1; }));
  options_.deduplicate = true;
  EXPECT_THROW(first_rows(needed(1)), Error);
}

TEST(ShuffleBlock, IsRefusedWhereItHasNoMeaning) {
  DataOptions options;
  options.train = {{"rows.jsonl", "completion", {}}};
  const auto refusal = [](const DataOptions& data) -> std::string {
    try {
      data.validate();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  options.shuffle_block = 10;
  EXPECT_EQ(refusal(options), "");
  options.train[0].weight = 1;
  EXPECT_THAT(refusal(options), HasSubstr("weight"));
  options.train[0].weight = 0;
  options.shuffle = false;
  EXPECT_THAT(refusal(options), HasSubstr("data.shuffle"));
  options.shuffle_block = -1;
  EXPECT_THAT(refusal(options), HasSubstr("must not be negative"));
}

}  // namespace
}  // namespace qlora::data
