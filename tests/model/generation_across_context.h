// What tests of answers that outgrow a context share.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "model/generate.h"

namespace qlora::model {

inline std::vector<std::vector<int32_t>> prompts_of(std::initializer_list<int32_t> lengths) {
  std::vector<std::vector<int32_t>> prompts;
  for (const int32_t length : lengths) {
    std::vector<int32_t>& prompt = prompts.emplace_back();
    for (int32_t i = 0; i < length; ++i) prompt.push_back((7 * i + 13 * length) % 250 + 3);
  }
  return prompts;
}

// Answers of 40 tokens, with guessed tokens and without.
inline void expect_guesses_change_no_answer(CausalLm& model) {
  GenerateOptions options;
  options.max_new_tokens = 40;
  for (int32_t token = 3; token < 250; token += 6) {
    const std::vector<int32_t> prompt = {token, token, token};
    options.draft_tokens = 0;
    const auto plain = generate(model, {prompt}, options);
    EXPECT_EQ(plain[0].size(), 40U);
    options.draft_tokens = 7;
    EXPECT_EQ(generate(model, {prompt}, options), plain) << token;
  }
}

}  // namespace qlora::model
