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

TEST(Targets, TheOutputEmbeddingTakesAnAdapterWhereItIsNamed) {
  EXPECT_EQ(match_targets_of({"lm_head"}, kNames).chosen,
            (std::vector<bool>{false, false, false, false, true}));
  EXPECT_EQ(match_targets_of({"all-linear"}, kNames).chosen,
            (std::vector<bool>{true, true, true, true, false}));
}

}  // namespace
}  // namespace qlora::lora
