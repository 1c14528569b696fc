// Texts that outgrow the context that longrope scales: all of their tokens turn by other
// frequencies from then on.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "model/generate.h"
#include "tests/model/generation_across_context.h"
#include "tests/support/small_models.h"

namespace qlora::model {
namespace {

constexpr int64_t kContext = 16;

std::unique_ptr<CausalLm> longrope_model() {
  test::SmallModel small = test::small_ministral3(0.0);
  small.config["model_type"] = "llama";
  small.config["max_position_embeddings"] = 64;
  small.config["rope_parameters"] = {{"rope_type", "longrope"},
                                     {"rope_theta", 10000.0},
                                     {"original_max_position_embeddings", kContext},
                                     {"short_factor", {1.0, 1.0, 1.0, 1.0}},
                                     {"long_factor", {1.5, 4.0, 9.0, 30.0}}};
  return small.load();
}

// Each token from a pass over the whole text before it.
std::vector<int32_t> without_cache(CausalLm& model, std::vector<int32_t> text, size_t count) {
  at::NoGradGuard no_grad;
  const size_t prompt = text.size();
  while (text.size() < prompt + count) {
    ForwardInput input;
    input.tokens = text;
    for (size_t p = 0; p < text.size(); ++p) input.positions.push_back(static_cast<int32_t>(p));
    input.cu_seqlens = {0, static_cast<int32_t>(text.size())};
    const at::Tensor last = model.hidden(input).narrow(0, static_cast<int64_t>(text.size()) - 1, 1);
    text.push_back(static_cast<int32_t>(model.logits(last, true).argmax(1).item<int64_t>()));
  }
  return {text.begin() + static_cast<ptrdiff_t>(prompt), text.end()};
}

TEST(LongRopeGeneration, CachedAnswersAreThoseOfWholePassesAcrossTheContext) {
  const auto model = longrope_model();
  GenerateOptions options;
  options.max_new_tokens = 24;
  const auto prompts = prompts_of({3, 9, 15, 16, 17, 20});
  const auto answers = generate(*model, prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(answers[i], without_cache(*model, prompts[i], 24)) << prompts[i].size();
}

TEST(LongRopeGeneration, GuessedTokensChangeNoAnswerAcrossTheContext) {
  expect_guesses_change_no_answer(*longrope_model());
}

}  // namespace
}  // namespace qlora::model
