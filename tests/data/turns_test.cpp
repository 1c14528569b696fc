#include "data/turns.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/data/byte_tokenizer.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::supervised_text;

std::string trained(const ByteTokenizer& tokenizer, const Example& example) {
  return supervised_text(tokenizer, example.tokens, example.supervised);
}

TEST(PromptEncoder, PutsOneBosInFrontOnlyWhereTheTokenizerDoes) {
  ByteTokenizer tokenizer;
  EXPECT_EQ(PromptEncoder(tokenizer).encode("a"), (std::vector<TokenId>{'a'}));
  tokenizer.adds_bos = true;
  const PromptEncoder encoder(tokenizer);
  EXPECT_EQ(encoder.encode("a"), (std::vector<TokenId>{ByteTokenizer::kBos, 'a'}));
  EXPECT_EQ(encoder.encode("<s>a"), (std::vector<TokenId>{ByteTokenizer::kBos, 'a'}));
  EXPECT_EQ(encoder.encode(""), (std::vector<TokenId>{ByteTokenizer::kBos}));
}

TEST(PromptEncoder, FindsTheControlTokenAtTheEndOfALongText) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  std::string text;
  for (int i = 0; i < 100; ++i)
    text += "\u00e9";  // cut inside a character the tail would not be UTF-8
  EXPECT_FALSE(encoder.trailing_special(text + "x"));
  const auto special = encoder.trailing_special(text + "<|im_end|>");
  ASSERT_TRUE(special);
  EXPECT_EQ(special->id, ByteTokenizer::kEnd);
  EXPECT_EQ(special->text, "<|im_end|>");
}

TEST(Turns, TheAnswerIsTrainedUpToItsEndOfTurnAndNotTheNewlineBehindIt) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const Turn turn = make_turn("Q", "Qhi<|im_end|>\n", encoder);
  EXPECT_EQ(turn.end_of_turn, ByteTokenizer::kEnd);
  EXPECT_EQ(turn.answer(tokenizer), "hi");
  const auto examples = tokenize_turns({turn}, encoder);
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(examples[0].tokens, (std::vector<TokenId>{'Q', 'h', 'i', ByteTokenizer::kEnd, '\n'}));
  EXPECT_EQ(examples[0].supervised, (std::vector<uint8_t>{0, 1, 1, 1, 0}));
}

TEST(Turns, AnEosBehindTheEndOfTurnIsNotPartOfTheAnswer) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const auto examples = tokenize_turns({make_turn("Q", "Qhi<|im_end|>\n</s>", encoder)}, encoder);
  EXPECT_EQ(trained(tokenizer, examples[0]), "hi<|im_end|>");
}

TEST(Turns, WithoutAControlTokenTheWholeRestIsTheAnswer) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const Turn turn = make_turn("Q", "Qhi\n", encoder);
  EXPECT_EQ(turn.end_of_turn, -1);
  EXPECT_EQ(trained(tokenizer, tokenize_turns({turn}, encoder)[0]), "hi\n");
}

TEST(Turns, AnEndOfTurnTextInsideTheAnswerDoesNotEndIt) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const Turn first = make_turn("Q", "Qa<|im_end|>b<|im_end|>\n", encoder);
  const Turn second =
      make_turn("Qa<|im_end|>b<|im_end|>\nR", "Qa<|im_end|>b<|im_end|>\nRc<|im_end|>\n", encoder);
  const auto examples = tokenize_turns({first, second}, encoder);
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(trained(tokenizer, examples[0]), "a<|im_end|>b<|im_end|>|c<|im_end|>");
}

TEST(Turns, UnchangedTurnsShareOneExample) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const std::vector<Turn> turns = {
      make_turn("U1A", "U1Aone<|im_end|>\n", encoder),
      make_turn("U1Aone<|im_end|>\nU2A", "U1Aone<|im_end|>\nU2Atwo<|im_end|>\n", encoder)};
  const auto examples = tokenize_turns(turns, encoder);
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(trained(tokenizer, examples[0]), "one<|im_end|>|two<|im_end|>");
}

// A template that drops thinking from earlier turns: the first answer stands only in its own text.
TEST(Turns, ARewrittenTurnGetsAnExampleOfItsOwnAndEveryAnswerIsTrainedOnce) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const std::vector<Turn> turns = {
      make_turn("1:", "1:(hm)one<|im_end|>", encoder),
      make_turn("1:one<|im_end|>2:", "1:one<|im_end|>2:(so)two<|im_end|>", encoder),
      make_turn("1:one<|im_end|>2:two<|im_end|>3:",
                "1:one<|im_end|>2:two<|im_end|>3:(ah)three<|im_end|>", encoder)};
  const auto examples = tokenize_turns(turns, encoder);
  ASSERT_EQ(examples.size(), 3u);
  EXPECT_EQ(trained(tokenizer, examples[0]), "(hm)one<|im_end|>");
  EXPECT_EQ(trained(tokenizer, examples[1]), "(so)two<|im_end|>");
  EXPECT_EQ(trained(tokenizer, examples[2]), "(ah)three<|im_end|>");
}

TEST(Turns, OnlyTheRewrittenTurnLeavesTheSharedExample) {
  ByteTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  const std::vector<Turn> turns = {
      make_turn("1:", "1:one<|im_end|>", encoder),
      make_turn("1:one<|im_end|>2:", "1:one<|im_end|>2:(so)two<|im_end|>", encoder),
      make_turn("1:one<|im_end|>2:two<|im_end|>3:",
                "1:one<|im_end|>2:two<|im_end|>3:three<|im_end|>", encoder)};
  const auto examples = tokenize_turns(turns, encoder);
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(trained(tokenizer, examples[0]), "(so)two<|im_end|>");
  EXPECT_EQ(trained(tokenizer, examples[1]), "one<|im_end|>|three<|im_end|>");
}

// "Answer:\n" + "\nParis": a vocabulary with "\n\n" merges across the boundary, but generation
// starts from "Answer:\n".
TEST(Turns, PromptTokensAreThoseOfTheGenerationPromptEvenIfTheTextWouldMerge) {
  ByteTokenizer tokenizer;
  tokenizer.merges = {"\n\n"};
  const PromptEncoder encoder(tokenizer);
  const Turn turn = make_turn("A\n", "A\n\nP<|im_end|>", encoder);
  ASSERT_EQ(encoder.encode(turn.whole()).size(), 4u);  // A, \n\n, P, end
  const auto examples = tokenize_turns({turn}, encoder);
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(examples[0].tokens, (std::vector<TokenId>{'A', '\n', '\n', 'P', ByteTokenizer::kEnd}));
  EXPECT_EQ(examples[0].supervised, (std::vector<uint8_t>{0, 0, 1, 1, 1}));
}

TEST(Turns, AnEarlierTurnThatMergesIsCutAndTheLaterOneKeepsTheTextGenerationSees) {
  ByteTokenizer tokenizer;
  tokenizer.merges = {"\n\n"};
  const PromptEncoder encoder(tokenizer);
  const std::vector<Turn> turns = {
      make_turn("1\n", "1\n\nP<|im_end|>", encoder),
      make_turn("1\n\nP<|im_end|>2\n", "1\n\nP<|im_end|>2\nQ<|im_end|>", encoder)};
  const auto examples = tokenize_turns(turns, encoder);
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(trained(tokenizer, examples[0]), "\nP<|im_end|>");
  EXPECT_EQ(trained(tokenizer, examples[1]), "Q<|im_end|>");
  EXPECT_EQ(examples[1].tokens[1],
            ByteTokenizer::kFirstMerge);  // as encode(prompt) of turn 2 has it
}

// The property behind all of the above, on texts whose merges straddle boundaries at random places.
TEST(Turns, WhatStandsBeforeATrainedRunIsAlwaysAnEncodedPrompt) {
  ByteTokenizer tokenizer;
  tokenizer.adds_bos = true;
  tokenizer.merges = {"ab", "ba", "aa"};
  const PromptEncoder encoder(tokenizer);
  for (unsigned bits = 0; bits < 512; ++bits) {
    std::string text;
    std::vector<Turn> turns;
    std::vector<std::vector<TokenId>> prompts;
    for (unsigned turn = 0; turn < 3; ++turn) {
      for (unsigned i = 0; i < 2; ++i) text += (bits >> (turn * 3 + i)) & 1u ? 'a' : 'b';
      const std::string prompt = text;
      prompts.push_back(encoder.encode(prompt));
      text += (bits >> (turn * 3 + 2)) & 1u ? "a<|im_end|>" : "b<|im_end|>";
      turns.push_back(make_turn(prompt, text, encoder));
    }
    size_t runs = 0;
    for (const Example& example : tokenize_turns(turns, encoder)) {
      for (size_t i = 1; i < example.tokens.size(); ++i) {
        if (example.supervised[i] == 0 || example.supervised[i - 1] != 0) continue;
        const std::vector<TokenId> before(example.tokens.begin(),
                                          example.tokens.begin() + static_cast<ptrdiff_t>(i));
        EXPECT_NE(std::find(prompts.begin(), prompts.end(), before), prompts.end());
        ++runs;
      }
    }
    EXPECT_EQ(runs, 3u) << bits;
  }
}

TEST(Turns, AWholeThatDoesNotBeginWithItsPromptIsAnError) {
  ByteTokenizer tokenizer;
  EXPECT_THROW(make_turn("Q", "R", PromptEncoder(tokenizer)), Error);
}

}  // namespace
}  // namespace qlora::data
