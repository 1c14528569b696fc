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
  EXPECT_THAT(message_of([&](auto& o) { o.beta1 = 1; }), StartsWith("optim.betas must"));
  EXPECT_THAT(message_of([&](auto& o) { o.beta2 = -0.1; }), StartsWith("optim.betas must"));
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

TEST(OptimizerOptions, AnUnknownOptimizerIsAnsweredWithTheKnownOnes) {
  EXPECT_EQ(
      message_of([](auto& o) { o.name = "sgd"; }),
      "optim.name must be one of adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, got 'sgd'");
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
}

}  // namespace
}  // namespace qlora::optim
