#include "model/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ranges>

#include "base/error.h"
#include "base/profile.h"
#include "base/stop.h"
#include "model/few_tokens.h"
#include "tests/support/small_models.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {

TEST(Generate, GreedyTokensAreThoseOfWholeForwardPasses) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 6;
  const std::vector<int32_t> prompt = {3, 14, 15, 9};
  const auto generated = generate(*model, {prompt}, options)[0];
  std::vector<int32_t> text = prompt;
  at::NoGradGuard no_grad;
  for (const int32_t token : generated) {
    ForwardInput input;
    input.tokens = text;
    for (size_t i = 0; i < text.size(); ++i) input.positions.push_back(static_cast<int32_t>(i));
    input.cu_seqlens = {0, static_cast<int32_t>(text.size())};
    EXPECT_EQ(model->logits(model->hidden(input))[-1].argmax().item<int64_t>(), token);
    text.push_back(token);
  }
  EXPECT_EQ(generated.size(), 6u);
}

TEST(Generate, ABatchGivesWhatEachPromptGivesAlone) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 5;
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {40}, {5, 6, 7, 8, 9, 10}};
  const auto together = generate(*model, prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(together[i], generate(*model, {prompts[i]}, options)[0]);
}

TEST(Generate, AStopIdEndsItsSequenceAlone) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 8;
  const auto free = generate(*model, {{1, 2, 3}, {40}}, options);
  options.stop_ids = {free[0][2]};
  const auto stopped = generate(*model, {{1, 2, 3}, {40}}, options);
  EXPECT_EQ(stopped[0].back(), free[0][2]);
  EXPECT_LE(stopped[0].size(), 3u);
}

TEST(Generate, SamplingRepeatsWithItsSeedAndChangesWithAnother) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 12;
  options.temperature = 1.5;
  const auto first = generate(*model, {{1, 2}}, options);
  EXPECT_EQ(generate(*model, {{1, 2}}, options), first);
  options.seed = 1;
  EXPECT_NE(generate(*model, {{1, 2}}, options), first);
  options.top_p = 1e-9;  // nothing but the most likely token is left
  const auto narrow = generate(*model, {{1, 2}}, options);
  options.temperature = 0;
  EXPECT_EQ(generate(*model, {{1, 2}}, options), narrow);
}

TEST(Generate, TheCacheGrowsWithTheAnswerAndNotWithTheLimit) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 300;  // more than the cache has room for at first
  const auto answer = generate(*model, {{1, 2, 3}, {4}}, options);
  options.max_new_tokens = std::numeric_limits<int64_t>::max();
  int64_t left = 2 * 300;
  const auto unlimited =
      generate(*model, {{1, 2, 3}, {4}}, options, [&](int64_t, int32_t) { return --left > 1; });
  const size_t common = std::min(answer[0].size(), unlimited[0].size());
  EXPECT_GT(common, 250u);
  for (size_t i = 0; i < common; ++i) EXPECT_EQ(answer[0][i], unlimited[0][i]) << i;
}

TEST(Generate, APromptsPassIsLeftWhereAStopIsWantedAndObeyed) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 4;
  const auto whole = generate(*model, {{1, 2, 3}}, options);
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  EXPECT_EQ(generate(*model, {{1, 2, 3}}, options), whole) << "nobody asked it to obey";
  options.obeys_stop = true;
  int64_t tokens = 0;
  const auto counted = [&](int64_t, int32_t) { return ++tokens > 0; };
  EXPECT_THROW(generate(*model, {{1, 2, 3}}, options, counted), Stopped);
  EXPECT_EQ(tokens, 0);
  options.obeys_stop = false;
  EXPECT_EQ(generate(*model, {{1, 2, 3}}, options), whole);
}

TEST(Generate, LogitsThatAreNoNumbersAreADivergence) {
  for (const float value : {NAN, INFINITY}) {
    const auto model = test::tiny_model();
    model->final_norm.frozen.fill_(value);
    for (const double temperature : {0.0, 1.0}) {
      GenerateOptions options;
      options.temperature = temperature;
      EXPECT_THROW(generate(*model, {{1, 2}}, options), DivergenceError);
    }
  }
}

TEST(Generate, AnEmptyPromptIsRefused) {
  const auto model = test::tiny_model();
  EXPECT_THROW(generate(*model, {{}}, {}), ConfigError);
}

// Passes of generate() through a model of two layers, each of which attends once.
struct Generated {
  std::vector<std::vector<int32_t>> answers;
  int64_t passes = 0;
};

Generated counted(CausalLm& model, const std::vector<std::vector<int32_t>>& prompts,
                  const GenerateOptions& options) {
  start_profile();
  Generated result{generate(model, prompts, options)};
  stop_profile();
  for (const StageTime& stage : stage_times())
    if (stage.stage == "attention") result.passes = stage.calls / model.architecture().num_layers();
  return result;
}

// What a prompt of repeated tokens is answered with repeats itself soon, as a model of few weights
// is bound to.
TEST(Generate, GuessedTokensSparePassesAndChangeNoAnswer) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto model = test::tiny_model(compute);
    ASSERT_TRUE(tokens_are_independent(*model));
    GenerateOptions options;
    options.max_new_tokens = 400;  // beyond what the cache has room for at first
    for (const std::vector<int32_t>& prompt :
         {std::vector<int32_t>{1, 2, 3}, {7, 8, 9, 7, 8, 9, 7, 8}, {40}}) {
      options.draft_tokens = 0;
      const Generated plain = counted(*model, {prompt}, options);
      EXPECT_EQ(plain.passes, 400);
      for (const int64_t most : {1, 3, 7, 100}) {
        options.draft_tokens = most;
        const Generated guessed = counted(*model, {prompt}, options);
        EXPECT_EQ(guessed.answers, plain.answers);
        EXPECT_LT(guessed.passes, most == 1 ? 250 : 200) << most;
        EXPECT_GE(guessed.passes, 400 / (std::min<int64_t>(most, 7) + 1)) << most;
      }
    }
  }
}

TEST(Generate, GuessedTokensChangeNoDraw) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 300;
  int64_t spared = 0;
  for (const double temperature : {0.02, 0.3, 2.0})
    for (const double top_p : {1.0, 0.7}) {
      options.temperature = temperature;
      options.top_p = top_p;
      options.draft_tokens = 0;
      const Generated plain = counted(*model, {{1, 2, 3}}, options);
      options.draft_tokens = 7;
      const Generated guessed = counted(*model, {{1, 2, 3}}, options);
      EXPECT_EQ(guessed.answers, plain.answers) << temperature << ' ' << top_p;
      spared += plain.passes - guessed.passes;
    }
  EXPECT_GT(spared, 0);
}

TEST(Generate, AnAnswerEndsAtItsStopIdWithinGuessedTokens) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 300;
  options.draft_tokens = 0;
  const std::vector<int32_t> whole = generate(*model, {{1, 2, 3}}, options)[0];
  options.draft_tokens = 7;
  for (const size_t wanted : {150u, 151u, 152u, 153u, 299u}) {
    std::vector<int32_t> told;
    const auto answer = generate(*model, {{1, 2, 3}}, options, [&](int64_t, int32_t token) {
      told.push_back(token);
      return told.size() < wanted;
    })[0];
    EXPECT_EQ(answer.size(), wanted);
    EXPECT_EQ(told, answer);
    EXPECT_TRUE(std::ranges::equal(answer, whole | std::views::take(wanted)));
  }
  options.stop_ids = {whole.back()};
  const auto stopped = generate(*model, {{1, 2, 3}}, options)[0];
  const auto end = std::ranges::find(whole, whole.back());
  EXPECT_TRUE(std::ranges::equal(stopped, std::ranges::subrange(whole.begin(), end + 1)));
}

TEST(Generate, TheSequenceThatIsLeftOfABatchIsGuessed) {
  const auto model = test::tiny_model();
  GenerateOptions options;
  options.max_new_tokens = 200;
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {40}};
  const auto first_ends_soon = [&] {
    return generate(*model, prompts, options, [tokens = 0](int64_t sequence, int32_t) mutable {
      return sequence == 1 || ++tokens < 5;
    });
  };
  options.draft_tokens = 0;
  const auto plain = first_ends_soon();
  options.draft_tokens = 7;
  EXPECT_EQ(first_ends_soon(), plain);
  EXPECT_EQ(plain[0].size(), 5u);
  EXPECT_EQ(plain[1].size(), 200u);
}

TEST(Generate, NoTokensAreGuessedWhereTheyWouldChangeTheBits) {
  quant::QuantizationOptions int8;
  int8.method = "int8";
  const auto model = test::small_gpt_neox().load(at::kFloat, {}, int8);
  EXPECT_FALSE(tokens_are_independent(*model));
  GenerateOptions options;
  options.max_new_tokens = 40;
  EXPECT_EQ(counted(*model, {{1, 2, 3}}, options).passes, 40);
}

TEST(Generate, DrawsFollowTheProbabilitiesUpToTheCut) {
  const auto model = test::tiny_model();
  at::NoGradGuard no_grad;
  ForwardInput input;
  input.tokens = {1, 2};
  input.positions = {0, 1};
  input.cu_seqlens = {0, 2};
  const at::Tensor logits = model->logits(model->hidden(input))[1].to(at::kDouble);
  for (const double top_p : {1.0, 0.6}) {
    const double temperature = 0.5;
    const at::Tensor p = at::softmax(logits / temperature, 0);
    const auto [sorted, order] = p.sort(0, true);
    const at::Tensor kept = sorted.cumsum(0) - sorted < top_p;
    at::Tensor expected = at::zeros_like(p);
    expected.index_put_({order.masked_select(kept)}, sorted.masked_select(kept));
    expected /= expected.sum();
    constexpr int kDraws = 20000;
    at::Tensor drawn = at::zeros_like(p);
    GenerateOptions options;
    options.max_new_tokens = 1;
    options.temperature = temperature;
    options.top_p = top_p;
    options.max_batch = 500;
    for (int round = 0; round < kDraws / 500; ++round) {
      options.seed = static_cast<uint64_t>(round);
      const std::vector<std::vector<int32_t>> prompts(500, {1, 2});
      for (const auto& answer : generate(*model, prompts, options))
        drawn[answer[0]] += 1.0 / kDraws;
    }
    // Five standard deviations of each frequency, and of what is rare three draws; of the rest
    // none.
    const at::Tensor bound =
        at::where(expected > 0, 5 * (expected * (1 - expected) / kDraws).sqrt() + 3.0 / kDraws, 0);
    EXPECT_TRUE((drawn - expected).abs().le(bound).all().item<bool>()) << "top_p " << top_p;
  }
}

}  // namespace
}  // namespace qlora::model
