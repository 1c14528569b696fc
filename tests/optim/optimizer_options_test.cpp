#include "optim/optimizer_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"

namespace qlora::optim {
namespace {

std::string message_of(const std::function<void(OptimizerOptions&)>& change) {
  OptimizerOptions options;
  change(options);
  try {
    options.validate();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(OptimizerOptions, TheDefaultsAreValid) { EXPECT_NO_THROW(OptimizerOptions().validate()); }

TEST(OptimizerOptions, AnErrorNamesTheKey) {
  using testing::StartsWith;
  const double nan = std::nan("");
  EXPECT_THAT(message_of([&](auto& o) { o.lr = nan; }), StartsWith("optim.lr must"));
  EXPECT_THAT(message_of([&](auto& o) { o.lr = -1; }), StartsWith("optim.lr must"));
  EXPECT_THAT(message_of([&](auto& o) { o.lr = HUGE_VAL; }), StartsWith("optim.lr must"));
  EXPECT_THAT(message_of([&](auto& o) { o.betas = {1, 0.9}; }), StartsWith("optim.betas must"));
  EXPECT_THAT(message_of([&](auto& o) { o.betas = {0.9, -0.1}; }), StartsWith("optim.betas must"));
  EXPECT_THAT(message_of([&](auto& o) { o.betas = {0.9}; }),
              StartsWith("optim.betas must be 2 numbers for paged_adamw_8bit, got 1"));
  EXPECT_THAT(message_of([&](auto& o) {
                o.name = "adagrad";
                o.betas = {0.9, 0.99};
              }),
              testing::StrEq("optim.betas: adagrad has none; leave it out"));
  EXPECT_THAT(message_of([&](auto& o) { o.alpha = -1; }), StartsWith("optim.alpha must"));
  EXPECT_THAT(message_of([&](auto& o) { o.alpha_ramp = -1; }), StartsWith("optim.alpha_ramp must"));
  EXPECT_THAT(message_of([&](auto& o) { o.eps = 0; }), StartsWith("optim.eps must"));
  EXPECT_THAT(message_of([&](auto& o) { o.eps = 1e-60; }), StartsWith("optim.eps must"));
  EXPECT_THAT(message_of([&](auto& o) { o.weight_decay = nan; }),
              StartsWith("optim.weight_decay must"));
  EXPECT_THAT(message_of([&](auto& o) { o.lr = o.weight_decay = 2; }),
              StartsWith("optim.lr * optim.weight_decay must"));
  EXPECT_THAT(message_of([&](auto& o) { o.max_grad_norm = -1; }),
              StartsWith("optim.max_grad_norm must"));
  EXPECT_THAT(message_of([&](auto& o) { o.schedule = "step"; }), StartsWith("optim.schedule must"));
  EXPECT_THAT(message_of([&](auto& o) { o.warmup_ratio = 1.5; }),
              StartsWith("optim.warmup_ratio must"));
  EXPECT_THAT(message_of([&](auto& o) { o.warmup_steps = -1; }),
              StartsWith("optim.warmup_steps must"));
  EXPECT_THAT(message_of([&](auto& o) { o.paged_resident_bytes = -1; }),
              StartsWith("optim.paged_resident_bytes must"));
}

TEST(OptimizerOptions, APatternDecidesTheDecayOfTheTensorsItMatches) {
  OptimizerOptions options;
  options.weight_decay = 0.1;
  options.weight_decay_pattern = {{"lora_B", 0.0}, {"layers\\.3\\.", 0.5}};
  options.validate();
  EXPECT_EQ(options.weight_decay_of("m.layers.3.q_proj.lora_A.weight"), 0.5);
  EXPECT_EQ(options.weight_decay_of("m.layers.13.q_proj.lora_B.weight"), 0.0);
  EXPECT_EQ(options.weight_decay_of("m.layers.13.q_proj.lora_A.weight"), 0.1);
  EXPECT_THAT(message_of([](auto& o) {
                o.weight_decay_pattern = {{"(", 0.1}};
              }),
              testing::HasSubstr("is not a valid regular expression"));
}

TEST(OptimizerOptions, OfSeveralPatternsTheFirstAsWrittenDecides) {
  OptimizerOptions options;
  options.weight_decay_pattern = {{"lora_A", 0.1}, {"layers\\.0", 0.5}, {"bias", 0.0}};
  EXPECT_EQ(options.weight_decay_of("m.layers.0.q_proj.lora_A.weight"), 0.1);
  options.weight_decay_pattern = {{"layers\\.0", 0.5}, {"lora_A", 0.1}};
  EXPECT_EQ(options.weight_decay_of("m.layers.0.q_proj.lora_A.weight"), 0.5);
}

TEST(OptimizerOptions, AnUnknownOptimizerIsAnsweredWithTheKnownOnes) {
  EXPECT_EQ(
      message_of([](auto& o) { o.name = "shampoo"; }),
      "optim.name must be one of adamw, adam, lion, ademamix, sgd, rmsprop, adagrad, lamb; all but "
      "lamb also as paged_NAME, NAME_8bit and paged_NAME_8bit; got 'shampoo'");
}

TEST(OptimizerOptions, NamesOfOtherToolsAreTranslated) {
  const auto answer = [](const std::string& name) {
    return message_of([&](auto& o) { o.name = name; });
  };
  using testing::HasSubstr;
  EXPECT_THAT(answer("adamw_torch"), HasSubstr("'adamw_torch' is called adamw here"));
  EXPECT_THAT(answer("adamw_bnb_8bit"), HasSubstr("is called adamw_8bit here"));
  EXPECT_THAT(answer("paged_adamw_32bit"), HasSubstr("is called paged_adamw here"));
  EXPECT_THAT(answer("bitsandbytes.optim.PagedAdamW8bit"),
              HasSubstr("is called paged_adamw_8bit here"));
  EXPECT_THAT(answer("torch.optim.AdamW"), HasSubstr("is called adamw here"));
  EXPECT_THAT(answer("AdamW"), HasSubstr("is called adamw here"));
  EXPECT_THAT(answer("AdamW8bit"), HasSubstr("is called adamw_8bit here"));
  EXPECT_THAT(answer("PagedLion8bit"), HasSubstr("is called paged_lion_8bit here"));
  EXPECT_THAT(answer("rmsprop_bnb_8bit"), HasSubstr("is called rmsprop_8bit here"));
  EXPECT_THAT(answer("paged_ademamix_32bit"), HasSubstr("is called paged_ademamix here"));
}

}  // namespace
}  // namespace qlora::optim
