#include "data/examples.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace qlora::data {
namespace {

// Example i has i + 2 tokens and is of row i.
std::vector<Example> made(int64_t count, int32_t source = 0) {
  std::vector<Example> examples(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    Example& example = examples[static_cast<size_t>(i)];
    example.tokens.assign(static_cast<size_t>(i) + 2, static_cast<TokenId>(10 * source + i));
    example.supervised.assign(example.tokens.size(), 1);
    example.row = i;
    example.source = source;
  }
  return examples;
}

std::vector<int64_t> rows_of(const Examples& examples) {
  std::vector<int64_t> rows;
  for (const ExampleView& example : examples) rows.push_back(10 * example.source + example.row);
  return rows;
}

using Rows = std::vector<int64_t>;

TEST(Examples, AViewSaysWhatTheExampleSays) {
  Example example{{5, 6, 7}, {0, 1, 1}, 3, 2, {8, 9}, Side::kRejected};
  const Examples examples{example};
  const ExampleView view = examples[0];
  EXPECT_EQ(view.length(), example.length());
  EXPECT_EQ(view.num_supervised(), 2);
  const Example copy = view.copy();
  EXPECT_EQ(copy.tokens, example.tokens);
  EXPECT_EQ(copy.supervised, example.supervised);
  EXPECT_EQ(copy.encoded, example.encoded);
  EXPECT_EQ(copy.row, 3);
  EXPECT_EQ(copy.source, 2);
  EXPECT_EQ(copy.side, Side::kRejected);
}

TEST(Examples, AChoiceOfAChoiceCountsInTheFirstOne) {
  const Examples all(made(6));
  const Examples some = all.chosen({5, 1, 3});
  EXPECT_EQ(rows_of(some), (Rows{5, 1, 3}));
  EXPECT_EQ(rows_of(some.chosen({2, 0})), (Rows{3, 5}));
  EXPECT_TRUE(all.chosen({}).empty());
  EXPECT_EQ(all.size(), 6u);
}

TEST(Examples, ListsAreJoinedWhetherChosenOrNot) {
  const Examples first(made(2)), second(made(3, 1));
  Examples plain = first;
  plain.append(second);
  EXPECT_EQ(rows_of(plain), (Rows{0, 1, 10, 11, 12}));
  Examples chosen = first.chosen({1});
  chosen.append(second);
  EXPECT_EQ(rows_of(chosen), (Rows{1, 10, 11, 12}));
  Examples behind = first;
  behind.append(second.chosen({2, 0}));
  EXPECT_EQ(rows_of(behind), (Rows{0, 1, 12, 10}));
  behind.append(Examples(made(1, 2)));
  EXPECT_EQ(rows_of(behind), (Rows{0, 1, 12, 10, 20}));
  Examples nothing;
  nothing.append(second);
  EXPECT_EQ(rows_of(nothing), (Rows{10, 11, 12}));
  nothing.append(nothing);
  EXPECT_EQ(rows_of(nothing), (Rows{10, 11, 12, 10, 11, 12}));
}

TEST(Examples, TheFingerprintIsThatOfTheExamplesInTheirOrder) {
  const std::vector<Example> examples = made(5);
  const Examples list(examples);
  EXPECT_EQ(examples_fingerprint(list), examples_fingerprint(examples));
  EXPECT_EQ(examples_fingerprint(list, 1, 3),
            examples_fingerprint(std::vector<Example>{examples[1], examples[2]}));
  EXPECT_EQ(example_fingerprint(list[4]), examples_fingerprint(std::vector<Example>{examples[4]}));
  EXPECT_NE(examples_fingerprint(list.chosen({1, 0})), examples_fingerprint(list.chosen({0, 1})));
}

TEST(Examples, WhatIsNotThereIsAnError) {
  const Examples examples(made(2));
  EXPECT_THROW(examples.at(2), Error);
  EXPECT_THROW(examples.chosen({2}), Error);
  EXPECT_THROW(examples.chosen({-1}), Error);
  EXPECT_THROW(Examples().front(), Error);
  EXPECT_EQ(std::ranges::count_if(examples, [](const ExampleView& e) { return e.row == 1; }), 1);
}

}  // namespace
}  // namespace qlora::data
