#include "model/expert_targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "model/families/family.h"

namespace qlora::model {
namespace {
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

Architecture small(const char* model_type) {
  const nlohmann::json config = {{"model_type", model_type},    {"vocab_size", 32},
                                 {"hidden_size", 32},           {"intermediate_size", 32},
                                 {"num_hidden_layers", 2},      {"num_attention_heads", 2},
                                 {"num_key_value_heads", 1},    {"head_dim", 16},
                                 {"num_local_experts", 4},      {"num_experts_per_tok", 2},
                                 {"tie_word_embeddings", false}};
  return read_architecture(io::JsonNode(config, "config.json"));
}

lora::LoraOptions targeting(const std::vector<std::string>& targets) {
  lora::LoraOptions options;
  options.rank = 8;
  options.alpha = 16;
  options.targets = targets;
  return options;
}

TEST(ExpertTargets, AllLinearOfMixtralIsAttentionRouterAndExpertsAsInPeft) {
  lora::LoraOptions options = targeting({"all-linear"});
  resolve_expert_targets(small("mixtral"), options);
  EXPECT_THAT(options.targets, ElementsAre("k_proj", "o_proj", "q_proj", "v_proj"));
  EXPECT_THAT(options.target_parameters, ElementsAre("down_proj", "gate.weight", "gate_up_proj"));
  EXPECT_THAT(options.rank_pattern, ElementsAre(Pair(".*\\.gate_up_proj", 16)));
  EXPECT_THAT(options.alpha_pattern, ElementsAre(Pair(".*\\.gate_up_proj", 32.0)));
  EXPECT_EQ(options.of_module("model.layers.1.mlp.experts.3.gate_up_proj").rank, 16);
  EXPECT_EQ(options.of_module("model.layers.1.mlp.experts.3.down_proj").rank, 8);
}

TEST(ExpertTargets, TwiceTheRankKeepsTheScalingOfBothRules) {
  for (const bool rslora : {false, true}) {
    lora::LoraOptions options = targeting({"all-linear"});
    options.use_rslora = rslora;
    resolve_expert_targets(small("mixtral"), options);
    const lora::LoraOptions own = options.of_module("model.layers.1.mlp.experts.3.gate_up_proj");
    EXPECT_EQ(own.rank, 16);
    EXPECT_DOUBLE_EQ(own.alpha, rslora ? 16 * std::sqrt(2.0) : 32);
    EXPECT_DOUBLE_EQ(own.scaling(), options.scaling());
  }
}

TEST(ExpertTargets, ARankThatAPatternGivesKeepsTheScalingToo) {
  lora::LoraOptions options = targeting({"all-linear"});
  options.rank_pattern[".*\\.gate_up_proj"] = 4;
  resolve_expert_targets(small("mixtral"), options);
  const lora::LoraOptions own = options.of_module("model.layers.1.mlp.experts.3.gate_up_proj");
  EXPECT_EQ(own.rank, 4);
  EXPECT_EQ(own.alpha, 8);
}

TEST(ExpertTargets, NamesOfAnExpertsMatricesAreItsParameters) {
  lora::LoraOptions options = targeting({"q_proj", "w1", "w2", "w3"});
  resolve_expert_targets(small("mixtral"), options);
  EXPECT_THAT(options.targets, ElementsAre("q_proj"));
  EXPECT_THAT(options.target_parameters, ElementsAre("down_proj", "gate_up_proj"));
}

TEST(ExpertTargets, OtherFamiliesKeepTheirTargets) {
  lora::LoraOptions options = targeting({"all-linear"});
  resolve_expert_targets(small("gpt_oss"), options);
  EXPECT_THAT(options.targets, ElementsAre("all-linear"));
  EXPECT_THAT(options.target_parameters, IsEmpty());
}

TEST(ExpertTargets, ParametersOfOtherFamiliesHaveTheRankOfTheRest) {
  lora::LoraOptions options = targeting({"q_proj"});
  options.target_parameters = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
  resolve_expert_targets(small("gpt_oss"), options);
  EXPECT_THAT(options.target_parameters,
              ElementsAre("mlp.experts.gate_up_proj", "mlp.experts.down_proj"));
  EXPECT_EQ(options.of_module("model.layers.1.mlp.experts.3.gate_up_proj").rank, 8);
}

}  // namespace
}  // namespace qlora::model
