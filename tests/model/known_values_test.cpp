// Values of known keys: those that this version does not compute are refused by name, in every
// family; those that released models have are taken without a word.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "io/json.h"
#include "model/families/family.h"
#include "tests/support/read_config.h"
#include "tests/support/small_models.h"

namespace qlora::model {
namespace {
using nlohmann::json;
using test::said_beside_sizes;
using test::said_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::vector<json> configs_of_every_family() {
  const json all = io::read_json_file(QLORA_SOURCE_DIR "/tests/data/families.json");
  std::vector<json> configs;
  for (const json& model : all.at("models")) configs.push_back(model.at("config"));
  return configs;
}

TEST(KnownValues, AnUnknownActivationIsRefusedByTheKeyOfEachFamily) {
  std::set<std::string> seen;
  for (const json& config : configs_of_every_family())
    for (const char* key : {"hidden_act", "hidden_activation", "activation_function", "activation",
                            "feed_forward_proj"}) {
      // Gemma 2 and 3 read hidden_activation in its place.
      const bool idle = key == std::string("hidden_act") && config.contains("hidden_activation");
      if (!config.contains(key) || idle) continue;
      json changed = config;
      changed[key] = "mish";
      EXPECT_THAT(said_of(changed),
                  AllOf(HasSubstr(fmt::format("config.json.{} must be", key)), HasSubstr("'mish'")))
          << config.at("model_type");
      seen.insert(config.at("model_type"));
    }
  // BLOOM's and MPT's are fixed.
  for (const Family& family : families())
    EXPECT_EQ(seen.contains(family.model_types.front()),
              family.name != "bloom" && family.name != "mpt")
        << family.name;
}

// "axial" in the place of each scaling that the config names.
int rename_scalings(json& node) {
  int renamed = 0;
  for (const char* dictionary : {"rope_parameters", "rope_scaling"}) {
    if (!node.contains(dictionary) || !node[dictionary].is_object()) continue;
    const bool by_layer = node[dictionary].contains("full_attention");
    json& rope = by_layer ? node[dictionary]["full_attention"] : node[dictionary];
    for (const char* key : {"rope_type", "type"})
      if (rope.contains(key)) {
        rope[key] = "axial";
        ++renamed;
      }
  }
  return renamed;
}

TEST(KnownValues, AnUnknownScalingOfRotationsIsRefusedByNameInEachFamilyThatRotates) {
  std::set<std::string> seen;
  for (const json& config : configs_of_every_family()) {
    json changed = config;
    if (test::described(config).rotaries.empty() || rename_scalings(changed) == 0) continue;
    EXPECT_THAT(said_of(changed), AllOf(HasSubstr("config.json.rope_"), HasSubstr("'axial'")))
        << config.at("model_type");
    seen.insert(config.at("model_type"));
  }
  const std::set<std::string> without = {"gpt2",  "gpt_neo", "gptj", "opt",
                                         "bloom", "mpt",     "t5",   "mt5"};
  for (const Family& family : families())
    EXPECT_NE(seen.contains(family.model_types.front()), without.contains(family.name))
        << family.name;
}

TEST(KnownValues, AnUnknownKindOfLayerIsRefusedInEachFamilyThatHasKinds) {
  std::set<std::string> seen;
  for (json config : configs_of_every_family()) {
    if (!config.contains("layer_types")) continue;
    config["layer_types"][1] = "chunked_attention";
    EXPECT_THAT(said_of(config), AllOf(HasSubstr("layer_types[1]"), HasSubstr("chunked_attention")))
        << config.at("model_type");
    seen.insert(config.at("model_type"));
  }
  EXPECT_GE(seen.size(), 9u);
}

TEST(KnownValues, WhatAFamilyComputesInOneWayAloneIsRefusedOtherwise) {
  const struct {
    const char* type;
    json keys;
    const char* said;
  } cases[] = {
      {"gemma3_text", {{"use_bidirectional_attention", true}}, "use_bidirectional_attention"},
      {"cohere2", {{"use_parallel_block", false}}, "use_parallel_block must be true"},
      {"cohere2", {{"use_gated_activation", false}}, "use_gated_activation must be true"},
      {"cohere2", {{"rotary_pct", 0.5}}, "rotary_pct must be 1"},
      {"cohere2", {{"position_embedding_type", "learned"}}, "must be rope_gptj"},
      {"mpt", {{"no_bias", false}}, "no_bias must be true"},
      {"mpt", {{"norm_type", "rmsnorm"}}, "norm_type must be low_precision_layernorm or layernorm"},
      {"mpt", {{"ffn_config", {{"ffn_type", "mptglu"}}}}, "ffn_config.ffn_type must be mptmlp"},
      {"starcoder2", {{"mlp_type", "gated"}}, "mlp_type must be default"},
      {"starcoder2", {{"norm_type", "rmsnorm"}}, "norm_type must be layer_norm"},
      {"phi3", {{"lm_head_bias", true}}, "lm_head_bias must be false"},
      {"phi3", {{"full_attn_mod", 4}}, "full_attn_mod must be 1"},
      {"gptj", {{"rotary", false}}, "rotary must be true"},
      {"qwen2", {{"use_mrope", true}}, "use_mrope must be false"},
      {"stablelm", {{"rope_pct", 0.5}}, "rope_pct must be what partial_rotary_factor is"},
      {"falcon",
       {{"apply_residual_connection_post_layernorm", true}},
       "apply_residual_connection_post_layernorm must be false"},
      {"falcon",
       {{"num_ln_in_parallel_attn", 2}},
       "num_ln_in_parallel_attn must be between 1 and 1"},
      {"falcon",
       {{"new_decoder_architecture", true},
        {"num_attention_heads", 8},
        {"num_kv_heads", 8},
        {"num_ln_in_parallel_attn", 3}},
       "num_ln_in_parallel_attn must be between 1 and 2"},
      {"falcon",
       {{"new_decoder_architecture", true},
        {"num_attention_heads", 8},
        {"num_kv_heads", 8},
        {"parallel_attn", false}},
       "parallel_attn must be true"}};
  for (const auto& [type, keys, said] : cases) {
    json config = {{"model_type", type}};
    EXPECT_EQ(said_beside_sizes(config), "") << type;
    config.update(keys);
    EXPECT_THAT(said_of(config), HasSubstr(said)) << type;
  }
}

TEST(KnownValues, AScaleThatComputesNoModelIsRefusedByItsKey) {
  const std::pair<const char*, const char*> scales[] = {{"gemma2", "query_pre_attn_scalar"},
                                                        {"gemma2", "attn_logit_softcapping"},
                                                        {"gemma2", "final_logit_softcapping"},
                                                        {"gemma3_text", "query_pre_attn_scalar"},
                                                        {"gemma3_text", "final_logit_softcapping"},
                                                        {"gpt_oss", "swiglu_limit"},
                                                        {"granite", "embedding_multiplier"},
                                                        {"granite", "residual_multiplier"},
                                                        {"granite", "attention_multiplier"},
                                                        {"granite", "logits_scaling"},
                                                        {"granitemoe", "logits_scaling"},
                                                        {"cohere", "logit_scale"},
                                                        {"cohere2", "logit_scale"},
                                                        {"olmo", "clip_qkv"},
                                                        {"olmoe", "clip_qkv"}};
  for (const auto& [type, key] : scales)
    for (const double wrong : {0.0, -2.0, 1e-80, 1e80})
      EXPECT_THAT(said_of({{"model_type", type}, {key, wrong}}),
                  AllOf(HasSubstr(fmt::format("config.json.{} must be above 0", key)),
                        HasSubstr(fmt::format("found {}", wrong))))
          << type;
  const auto mpt = [](const char* key, double value) {
    return said_of({{"model_type", "mpt"}, {"attn_config", {{key, value}}}});
  };
  EXPECT_THAT(mpt("clip_qkv", -1), HasSubstr("attn_config.clip_qkv must be above 0"));
  EXPECT_THAT(mpt("clip_qkv", 0), Not(HasSubstr("clip_qkv")));  // none
  EXPECT_THAT(mpt("softmax_scale", 0), HasSubstr("attn_config.softmax_scale must be above 0"));
}

TEST(KnownValues, ACapThatIsNullIsNone) {
  const json config = {{"model_type", "gemma2"},
                       {"attn_logit_softcapping", nullptr},
                       {"final_logit_softcapping", nullptr}};
  EXPECT_EQ(test::described(config).block(0).attention().shape.softcap, 0);
  EXPECT_EQ(test::described(config).logit_softcap, 0);
  EXPECT_EQ(test::described({{"model_type", "gemma2"}}).logit_softcap, 30);
}

TEST(KnownValues, NumbersOfWhichTransformersMakesNoModelAreRefusedByTheirKey) {
  const struct {
    const char* type;
    json keys;
    const char* said;
  } cases[] = {
      {"mistral", {{"sliding_window", 0}}, "sliding_window must be an integer from 1"},
      {"gpt_oss", {{"sliding_window", 0}}, "sliding_window must be an integer from 1"},
      {"gemma2", {{"sliding_window", 0}}, "sliding_window must be an integer from 1"},
      {"gemma2", {{"sliding_window", nullptr}}, "sliding_window must be the size of a window"},
      {"cohere2", {{"sliding_window", nullptr}}, "sliding_window must be the size of a window"},
      {"qwen2_moe",
       {{"use_sliding_window", true}, {"sliding_window", nullptr}},
       "sliding_window must be the size of a window"},
      {"gpt_neo", {{"window_size", 0}}, "window_size must be an integer from 1"},
      {"qwen3_moe", {{"decoder_sparse_step", 0}}, "decoder_sparse_step must be an integer from 1"},
      {"gemma3_text", {{"sliding_window_pattern", 0}}, "sliding_window_pattern must be"},
      {"cohere2", {{"sliding_window_pattern", 0}}, "sliding_window_pattern must be"},
      {"smollm3", {{"no_rope_layer_interval", 0}}, "no_rope_layer_interval must be"},
      {"qwen2_moe",
       {{"shared_expert_intermediate_size", 0}},
       "shared_expert_intermediate_size must be"},
      {"gpt2", {{"n_positions", 0}}, "n_positions must be an integer from 1"},
      {"llama", {{"max_position_embeddings", 0}}, "max_position_embeddings must be"},
      {"t5", {{"decoder_start_token_id", 32128}}, "decoder_start_token_id must be"},
      {"t5", {{"pad_token_id", 32128}}, "pad_token_id must be an integer from 0 to 32127"},
      {"mpt",
       {{"attn_config", {{"attn_type", "multiquery_attention"}}}},
       "attn_config.attn_type must be multihead_attention"},
      {"phi3",
       {{"original_max_position_embeddings", 0}, {"rope_scaling", {{"type", "longrope"}}}},
       "original_max_position_embeddings must be a number above 0"},
      {"falcon",
       {{"new_decoder_architecture", true}, {"num_kv_heads", 8}},
       "num_attention_heads (71) must be a multiple of num_kv_heads (8)"}};
  for (const auto& [type, keys, said] : cases) {
    json config = {{"model_type", type}};
    config.update(keys);
    EXPECT_THAT(said_of(config), HasSubstr(said)) << type;
  }
}

TEST(KnownValues, TwoSpellingsOfOneValueMustAgree) {
  const struct {
    const char *type, *one, *other;
  } cases[] = {{"mixtral", "num_local_experts", "num_experts"},
               {"bloom", "n_embed", "hidden_size"},
               {"gpt2", "n_layer", "num_hidden_layers"}};
  for (const auto& [type, one, other] : cases) {
    const auto said = [&](int second) {
      return said_beside_sizes({{"model_type", type}, {one, 16}, {other, second}});
    };
    EXPECT_EQ(said(16), "") << type;
    EXPECT_THAT(said(8),
                AllOf(HasSubstr(fmt::format("config.json.{} must be what", other)),
                      HasSubstr(fmt::format("config.json.{} is, 16", one)), HasSubstr("found 8")));
  }
}

TEST(KnownValues, AWindowThatIsUsedAndNullIsNoneAndNamed) {
  for (const char* type : {"qwen2", "qwen3", "qwen3_moe", "smollm3"}) {
    const json config = {
        {"model_type", type}, {"use_sliding_window", true}, {"sliding_window", nullptr}};
    EXPECT_THAT(said_of(config), HasSubstr("use_sliding_window is true")) << type;
    EXPECT_EQ(test::described(config).block(0).attention().shape.window, 0) << type;
  }
}

TEST(KnownValues, SizesThatNobodySaysAreNamedInOneWarning) {
  EXPECT_THAT(said_of({{"model_type", "mistral"}, {"num_hidden_layers", 2}, {"hidden_size", 64}}),
              HasSubstr("taken: vocab_size 32000, intermediate_size 11008, num_attention_heads 32, "
                        "num_key_value_heads 8\n"));
  EXPECT_THAT(said_of({{"model_type", "mixtral"}}),
              AllOf(HasSubstr("num_local_experts 8, num_experts_per_tok 2"),
                    HasSubstr("hidden_size 4096")));
}

TEST(KnownValues, BiasesAreOfFamiliesForWhichTransformersReadsTheirKey) {
  const auto attention = [](const char* type) {
    return test::described({{"model_type", type}, {"attention_bias", true}}).block(0).attention();
  };
  for (const char* type : {"llama", "qwen3", "qwen3_moe", "smollm3", "granite", "gemma2", "olmo2"})
    EXPECT_TRUE(attention(type).in[0].bias && attention(type).out.bias) << type;
  for (const char* type : {"mistral", "ministral", "ministral3", "mixtral", "phi3"})
    EXPECT_FALSE(attention(type).in[0].bias || attention(type).out.bias) << type;
  for (const char* type : {"qwen2", "qwen2_moe"})
    EXPECT_TRUE(attention(type).in[0].bias && !attention(type).out.bias) << type;
  const auto mlp = [](const char* type) {
    return test::described({{"model_type", type}, {"mlp_bias", true}}).block(0).mlp();
  };
  for (const char* type : {"llama", "smollm3", "granite", "arcee"})
    EXPECT_TRUE(mlp(type).in[0].bias && mlp(type).out.bias) << type;
  for (const char* type : {"mistral", "qwen3", "gemma2", "olmo2"})
    EXPECT_FALSE(mlp(type).in[0].bias || mlp(type).out.bias) << type;
  EXPECT_THAT(said_of({{"model_type", "mistral"}, {"attention_bias", true}}),
              HasSubstr("attention_bias is true; models of this family have no such biases"));
  EXPECT_THAT(said_of({{"model_type", "qwen3"}, {"mlp_bias", true}}),
              HasSubstr("mlp_bias is true"));
}

TEST(KnownValues, HeadsOfAnOddSizeAreThoseOfFamiliesThatDoNotRotate) {
  EXPECT_EQ(
      test::described({{"model_type", "t5"}, {"d_kv", 7}}).block(0).attention().shape.head_dim, 7);
  EXPECT_THAT(said_of({{"model_type", "llama"}, {"head_dim", 7}}), HasSubstr("even for RoPE"));
}

// Keys that the files of released models have beside those that transformers writes today.
TEST(KnownValues, WhatReleasedModelsSayIsTakenWithoutAWord) {
  const std::pair<const char*, json> released[] = {
      {"cohere2",
       {{"_sliding_window_pattern", 4},
        {"cache_implementation", "hybrid"},
        {"layer_switch", 4},
        {"order_of_interleaved_layers", "local_attn_first"},
        {"position_embedding_type", "rope_gptj"},
        {"rotary_pct", 1.0},
        {"use_embedding_sharing", true},
        {"use_gated_activation", true},
        {"use_parallel_block", true},
        {"use_parallel_embedding", true},
        {"use_qk_norm", false}}},
      {"falcon", {{"apply_residual_connection_post_layernorm", false}, {"auto_map", {{"a", "b"}}}}},
      {"mpt",
       {{"learned_pos_emb", true},
        {"logit_scale", nullptr},
        {"no_bias", true},
        {"norm_type", "low_precision_layernorm"},
        {"tokenizer_name", "EleutherAI/gpt-neox-20b"},
        {"verbose", 0}}},
      {"starcoder2",
       {{"activation_function", "gelu"},
        {"attention_softmax_in_fp32", true},
        {"layer_norm_epsilon", 1e-5},
        {"mlp_type", "default"},
        {"norm_type", "layer_norm"},
        {"scale_attention_softmax_in_fp32", true},
        {"scale_attn_weights", true}}},
      {"phi3",
       {{"full_attn_mod", 1},
        {"interpolate_factor", 1},
        {"lm_head_bias", false},
        {"mlp_bias", false},
        {"attention_bias", false}}},
      {"stablelm", {{"num_heads", 32}, {"rope_pct", 0.25}, {"rotary_scaling_factor", 1.0}}},
      {"qwen2", {{"use_mrope", false}}},
      {"gptj", {{"rotary", true}, {"scale_attn_weights", true}}},
      {"gpt2", {{"n_ctx", 1024}, {"output_past", true}}},
      {"bloom",
       {{"bias_dropout_fusion", true},
        {"masked_softmax_fusion", true},
        {"offset_alibi", 100},
        {"seq_length", 2048},
        {"skip_bias_add_qkv", false}}},
      {"gpt_oss", {{"experts_per_token", 4}, {"initial_context_length", 4096}}},
      {"gemma", {{"hidden_activation", nullptr}}},
      {"gemma2", {{"cache_implementation", "hybrid"}, {"sliding_window_size", 4096}}},
      {"smollm3", {{"max_window_layers", 28}}},
      {"qwen2_moe", {{"use_sliding_window", false}, {"sliding_window", 0}}}};
  for (const auto& [type, keys] : released) {
    json config = {{"model_type", type}};
    config.update(keys);
    EXPECT_EQ(said_beside_sizes(config), "") << type;
  }
}

}  // namespace
}  // namespace qlora::model
