#include "model/default_targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "lora/targets.h"
#include "model/expert_targets.h"
#include "model/families/family.h"
#include "tests/support/small_models.h"

namespace qlora::model {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Of each family, one model of tests/data/families.json.
std::map<std::string, Architecture> one_of_each_family() {
  std::map<std::string, Architecture> all;
  const nlohmann::json file = io::read_json_file(QLORA_SOURCE_DIR "/tests/data/families.json");
  for (const nlohmann::json& entry : file.at("models")) {
    Architecture a = test::described(entry.at("config"));
    const std::string family = a.family;
    all.emplace(family, std::move(a));
  }
  return all;
}

lora::LoraOptions targeting(const std::vector<std::string>& targets) {
  lora::LoraOptions options;
  options.targets = targets;
  return options;
}

TEST(DefaultTargets, EachNamesModulesOfItsFamilyAndTheOthersAreRefused) {
  int with = 0;
  for (const auto& [family, architecture] : one_of_each_family()) {
    SCOPED_TRACE(family);
    lora::LoraOptions options = targeting({"peft-default"});
    if (peft_default_targets(architecture).empty()) {
      EXPECT_THAT([&] { resolve_expert_targets(architecture, options); },
                  ThrowsMessage<ConfigError>(HasSubstr("no default targets for the family")));
      continue;
    }
    ++with;
    resolve_expert_targets(architecture, options);
    const lora::Targets found = lora::match_targets(options, architecture.linear_modules());
    ASSERT_EQ(found.matches.size(), options.targets.size());
    // In each layer one; in T5's decoder, whose layers have two attentions, two.
    for (const lora::TargetMatch& match : found.matches)
      EXPECT_GE(match.modules(), architecture.num_layers()) << match.pattern;
  }
  EXPECT_EQ(with, 20);  // of PEFT 0.21's list, those that this version reads
}

TEST(DefaultTargets, AreAsPeftHasThemWhereTheyAreNotQueriesAndValues) {
  const auto all = one_of_each_family();
  const auto targets = [&all](const char* family) { return peft_default_targets(all.at(family)); };
  EXPECT_THAT(targets("gpt2"), ElementsAre("c_attn"));
  EXPECT_THAT(targets("bloom"), ElementsAre("query_key_value"));
  EXPECT_THAT(targets("mpt"), ElementsAre("Wqkv"));
  EXPECT_THAT(targets("phi"), ElementsAre("q_proj", "v_proj", "fc1", "fc2"));
  EXPECT_THAT(targets("t5"), ElementsAre("q", "v"));
}

TEST(DefaultTargets, StandBesideOtherNamesOnce) {
  lora::LoraOptions options = targeting({"q_proj", "peft-default", "o_proj"});
  resolve_expert_targets(one_of_each_family().at("llama"), options);
  EXPECT_THAT(options.targets, ElementsAre("q_proj", "o_proj", "v_proj"));
}

TEST(DefaultTargets, OfMixtralAreThoseOfAttentionAlone) {
  lora::LoraOptions options = targeting({"peft-default"});
  resolve_expert_targets(one_of_each_family().at("mixtral"), options);
  EXPECT_THAT(options.targets, ElementsAre("q_proj", "v_proj"));
  EXPECT_TRUE(options.target_parameters.empty());
}

TEST(DefaultTargets, AModelOfTextAndImagesHasNone) {
  Architecture a = one_of_each_family().at("gemma3");
  EXPECT_FALSE(peft_default_targets(a).empty());
  a.is_multimodal = true;
  EXPECT_TRUE(peft_default_targets(a).empty());
}

}  // namespace
}  // namespace qlora::model
