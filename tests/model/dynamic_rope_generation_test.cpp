// Texts that outgrow the context of dynamic RoPE: each token beyond turns by the length of the text
// up to it, and what was read before stays as it was.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "model/generate.h"
#include "model/kv_cache.h"
#include "tests/model/generation_across_context.h"
#include "tests/support/small_models.h"

namespace qlora::model {
namespace {

constexpr int64_t kContext = 16;

std::unique_ptr<CausalLm> dynamic_model() {
  test::SmallModel small = test::small_ministral3(0.0);
  small.config["model_type"] = "llama";
  small.config["max_position_embeddings"] = kContext;
  small.config["rope_parameters"] = {
      {"rope_type", "dynamic"}, {"rope_theta", 10000.0}, {"factor", 4.0}};
  return small.load();
}

// The prompt in one pass, then one token a pass.
std::vector<int32_t> token_by_token(CausalLm& model, std::vector<int32_t> text, size_t count) {
  at::NoGradGuard no_grad;
  KvCache cache(model.cache_widths(), 1, static_cast<int64_t>(text.size() + count),
                model.compute_dtype(), model.device());
  const size_t prompt = text.size();
  for (size_t read = 0; text.size() < prompt + count;) {
    ForwardInput input;
    input.cache = &cache;
    for (; read < text.size(); ++read) {
      input.tokens.push_back(text[read]);
      input.positions.push_back(static_cast<int32_t>(read));
    }
    input.cu_seqlens = {0, static_cast<int32_t>(input.tokens.size())};
    const at::Tensor rows = model.hidden(input);
    const at::Tensor last = rows.narrow(0, rows.size(0) - 1, 1);
    text.push_back(static_cast<int32_t>(model.logits(last, true).argmax(1).item<int64_t>()));
  }
  return {text.begin() + static_cast<ptrdiff_t>(prompt), text.end()};
}

TEST(DynamicRopeGeneration, AnswersGoOnBeyondTheContextInABatchAsAlone) {
  const auto model = dynamic_model();
  GenerateOptions options;
  options.max_new_tokens = 40;
  const auto prompts = prompts_of({3, 9, 15, 16, 17, 40});
  const auto answers = generate(*model, prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(answers[i], token_by_token(*model, prompts[i], 40)) << prompts[i].size();
}

TEST(DynamicRopeGeneration, GuessedTokensChangeNoAnswerAcrossTheContext) {
  expect_guesses_change_no_answer(*dynamic_model());
}

}  // namespace
}  // namespace qlora::model
