#include "lora/targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace qlora::lora {
namespace {

Targets match_targets_of(const std::vector<std::string>& patterns,
                         const std::vector<std::string>& names) {
  LoraOptions options;
  options.targets = patterns;
  return match_targets(options, names);
}

const std::vector<std::string> kNames = {
    "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
    "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj", "lm_head"};

std::string message(const std::vector<std::string>& patterns) {
  try {
    match_targets_of(patterns, kNames);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Targets, AllLinearLeavesTheOutputEmbeddingOut) {
  const Targets targets = match_targets_of({"all-linear"}, kNames);
  EXPECT_EQ(targets.chosen, (std::vector<bool>{true, true, true, true, false}));
  EXPECT_EQ(targets.matches[0].modules(), 4);
}

TEST(Targets, ANameMatchesTheEndOfAPathAtADot) {
  EXPECT_EQ(match_targets_of({"q_proj"}, kNames).chosen,
            (std::vector<bool>{true, false, true, false, false}));
  EXPECT_EQ(match_targets_of({"mlp.down_proj"}, kNames).chosen,
            (std::vector<bool>{false, false, false, true, false}));
  EXPECT_THAT(message({"proj"}), testing::HasSubstr("matches no module"));
  EXPECT_THAT(message({"down_prj"}), testing::HasSubstr("did you mean 'down_proj'? The model has"));
}

TEST(Targets, ARegularExpressionMatchesTheWholePath) {
  EXPECT_EQ(match_targets_of({R"(model\.layers\.1\..*)"}, kNames).chosen,
            (std::vector<bool>{false, false, true, true, false}));
  EXPECT_THAT(message({"layers.[0"}), testing::HasSubstr("not a valid regular expression"));
}

TEST(Targets, APatternWithoutAMatchNamesWhatThereIs) {
  EXPECT_THAT(message({"query_key_value"}),
              testing::HasSubstr("down_proj, k_proj, lm_head, q_proj"));
}

TEST(Targets, AllPatternsWithoutAMatchAreToldTogether) {
  EXPECT_EQ(message({"q_prj", "k_proj", "dwon_proj", "query_key_value"}),
            "lora.targets: 'q_prj' (did you mean 'q_proj'?), 'dwon_proj' (did you mean "
            "'down_proj'?), 'query_key_value' match no module; the model has down_proj, k_proj, "
            "lm_head, q_proj");
}

template <typename Check>
std::string refusal(const Check& check) {
  try {
    check();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Targets, WhatNarrowsOrChangesThemMustMeanAModule) {
  LoraOptions options;
  options.exclude_modules = {"down_proj", R"(.*layers\.1\..*)"};
  options.layers_to_transform = {0, 1};
  options.rank_pattern = {{"down_proj", 4}, {R"(layers\.0\.self_attn\.(q|k)_proj)", 2}};
  options.alpha_pattern = {{"lm_head", 4.0}};
  const auto told = [&](auto check) { return refusal([&] { check(options, kNames); }); };
  EXPECT_EQ(told(check_exclusions), "");
  EXPECT_EQ(told(check_layers), "");
  EXPECT_EQ(told(check_rank_pattern), "");
  EXPECT_EQ(told(check_alpha_pattern), "");
  options.exclude_modules.emplace_back("down_prj");
  options.layers_to_transform = {1, 2, 99};
  options.rank_pattern["layers\\.7\\..*"] = 2;
  options.alpha_pattern["q_porj"] = 2;
  EXPECT_EQ(told(check_exclusions),
            "lora.exclude_modules: 'down_prj' matches no module; did you mean 'down_proj'? The "
            "model has down_proj, k_proj, lm_head, q_proj");
  EXPECT_EQ(told(check_layers),
            "lora.layers_to_transform: the model has the layers 0 to 1, got 2, 99");
  EXPECT_THAT(told(check_rank_pattern),
              testing::HasSubstr("lora.rank_pattern: 'layers\\.7\\..*' matches no module"));
  EXPECT_THAT(told(check_alpha_pattern),
              testing::HasSubstr("lora.alpha_pattern: 'q_porj' matches no module; did you mean "
                                 "'q_proj'?"));
  options.exclude_modules = {"layers.[0"};
  EXPECT_THAT(told(check_exclusions),
              testing::HasSubstr("lora.exclude_modules: 'layers.[0' is not a valid"));
}

TEST(Targets, LayersThatTheModelHasNotAreNoFaultOfTheTargets) {
  LoraOptions options;
  options.layers_to_transform = {99};
  EXPECT_EQ(refusal([&] { match_targets(options, kNames); }),
            "lora.layers_to_transform: the model has the layers 0 to 1, got 99");
  options.layers_to_transform = {0};
  options.targets = {"down_proj"};
  EXPECT_THAT(refusal([&] { match_targets(options, kNames); }),
              testing::HasSubstr("leave no module to adapt"));
}

TEST(Targets, TheOutputEmbeddingTakesAnAdapterWhereItIsNamed) {
  EXPECT_EQ(match_targets_of({"lm_head"}, kNames).chosen,
            (std::vector<bool>{false, false, false, false, true}));
  EXPECT_EQ(match_targets_of({"all-linear"}, kNames).chosen,
            (std::vector<bool>{true, true, true, true, false}));
}

}  // namespace
}  // namespace qlora::lora
