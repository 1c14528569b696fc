// What a config.json of the families before Llama says, and what is refused or warned of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
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
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

json gpt2(const json& more = json::object()) {
  json config = {{"model_type", "gpt2"}, {"n_embd", 32}, {"n_layer", 3}, {"n_head", 4}};
  config.update(more);
  return config;
}

json gpt_neo(const json& attention_types) {
  return {{"model_type", "gpt_neo"}, {"hidden_size", 32}, {"num_layers", 4},
          {"num_heads", 4},          {"window_size", 8},  {"attention_types", attention_types}};
}

json gptj(const json& rotary_dim) {
  return {{"model_type", "gptj"}, {"n_embd", 32}, {"n_head", 4}, {"rotary_dim", rotary_dim}};
}

json mpt(const json& attention, const json& more = json::object()) {
  json config = {
      {"model_type", "mpt"}, {"d_model", 32}, {"n_heads", 4}, {"attn_config", attention}};
  config.update(more);
  return config;
}

std::vector<float> scales_of(const Architecture& a) {
  std::vector<float> scales;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    scales.push_back(a.block(layer).attention().shape.scale);
  return scales;
}

TEST(ClassicConfigs, WhatTransformersWritesIsSilent) {
  const std::set<std::string> classics = {"gpt2",  "gpt_neo", "gptj", "gpt_neox",  "opt",
                                          "bloom", "falcon",  "mpt",  "ministral3"};
  const json file = io::read_json_file(QLORA_SOURCE_DIR "/tests/data/families.json");
  std::set<std::string> seen;
  for (const json& model : file.at("models")) {
    const std::string type = model.at("config").value("model_type", "");
    if (!classics.contains(type)) continue;
    seen.insert(type);
    EXPECT_EQ(said_of(model.at("config")), "") << model.at("name");
  }
  EXPECT_EQ(seen, classics);
}

TEST(ClassicConfigs, DropoutOfTheBaseIsNamedWhereItIsNotZero) {
  EXPECT_THAT(said_of(gpt2({{"attn_pdrop", 0.1}, {"embd_pdrop", 0.0}, {"resid_pdrop", 0.2}})),
              AllOf(HasSubstr("attn_pdrop 0.1, resid_pdrop 0.2"), Not(HasSubstr("embd_pdrop")),
                    HasSubstr("without dropout")));
  const std::pair<const char*, const char*> keys[] = {
      {"gpt_neo", "resid_dropout"}, {"gptj", "embd_pdrop"},      {"gpt_neox", "hidden_dropout"},
      {"opt", "dropout"},           {"bloom", "hidden_dropout"}, {"falcon", "hidden_dropout"},
      {"mpt", "resid_pdrop"}};
  for (const auto& [type, key] : keys) {
    EXPECT_THAT(said_of({{"model_type", type}, {key, 0.25}}), HasSubstr(key + std::string(" 0.25")))
        << type;
    EXPECT_EQ(said_beside_sizes({{"model_type", type}, {key, 0.0}}), "") << type;
  }
  EXPECT_THAT(said_of(mpt({{"attn_pdrop", 0.1}})), HasSubstr("attn_config.attn_pdrop is 0.1"));
}

TEST(ClassicConfigs, Gpt2sScoresAreScaledByHeadAndByLayer) {
  const float root = inverse_root(8);
  EXPECT_THAT(scales_of(test::described(gpt2())), ElementsAre(root, root, root));
  EXPECT_THAT(scales_of(test::described(gpt2({{"scale_attn_by_inverse_layer_idx", true}}))),
              ElementsAre(root, root / 2, root / 3));
  EXPECT_THAT(scales_of(test::described(gpt2(
                  {{"scale_attn_by_inverse_layer_idx", true}, {"scale_attn_weights", false}}))),
              ElementsAre(1.0f, 1.0f / 2, 1.0f / 3));
}

TEST(ClassicConfigs, MoreKindsOfLayersThanAreHeldAreRefusedByTheirKey) {
  const auto scaled = [](int layers) {
    return gpt2({{"n_layer", layers}, {"scale_attn_by_inverse_layer_idx", true}});
  };
  const std::vector<float> scales = scales_of(test::described(scaled(256)));
  EXPECT_EQ(scales.at(255), inverse_root(8) / 256);
  EXPECT_THAT(said_of(scaled(257)), AllOf(HasSubstr("config.json.scale_attn_by_inverse_layer_idx"),
                                          HasSubstr("257 layers")));
  EXPECT_EQ(said_beside_sizes(gpt2({{"n_layer", 257}})), "");
}

TEST(ClassicConfigs, GptNeosWindowsAreThoseOfItsAttentionTypes) {
  const auto windows = [](const json& types) {
    const Architecture a = test::described(gpt_neo(types));
    std::vector<int64_t> all;
    for (int64_t layer = 0; layer < a.num_layers(); ++layer)
      all.push_back(a.block(layer).attention().shape.window);
    return all;
  };
  EXPECT_THAT(windows(json::parse(R"([[["global", "local"], 2]])")), ElementsAre(0, 8, 0, 8));
  EXPECT_THAT(windows(json::parse(R"([[["local"], 3], [["global"], 1]])")),
              ElementsAre(8, 8, 8, 0));
  EXPECT_THAT(windows(nullptr), ElementsAre(0, 8, 0, 8));
}

TEST(ClassicConfigs, GptNeosAttentionTypesMustNameEachLayer) {
  const auto said = [](const char* types) { return said_of(gpt_neo(json::parse(types))); };
  for (const char* wrong : {R"([[["global", "local"], 3]])", R"([[["local"], 1]])", "[]"})
    EXPECT_THAT(said(wrong), AllOf(HasSubstr("attention_types"), HasSubstr("4 layers"))) << wrong;
  EXPECT_THAT(said(R"([[["global", "sparse"], 2]])"),
              AllOf(HasSubstr("attention_types[0][0][1]"), HasSubstr("global or local")));
  EXPECT_THAT(said(R"([[["global", "local"]]])"), HasSubstr("how often they come"));
  EXPECT_THAT(said(R"([[["global", "local"], 0]])"), HasSubstr("attention_types[0][1]"));
}

TEST(ClassicConfigs, GptJsRotatedPartMustBeThereAndFitIntoAHead) {
  EXPECT_THAT(said_of(gptj(nullptr)), HasSubstr("rotary_dim is null"));
  EXPECT_THAT(said_of(gptj(10)),
              AllOf(HasSubstr("rotary_dim is 10"), HasSubstr("only 8 elements")));
  EXPECT_THAT(said_of(gptj(3)), HasSubstr("config.json"));
  EXPECT_EQ(test::described(gptj(8)).rotaries.at(0).width, 8);
  EXPECT_TRUE(test::described(gptj(8)).rotaries.at(0).pairs);
}

TEST(ClassicConfigs, WhatMptsOwnProgramComputesOtherwiseIsRefused) {
  EXPECT_THAT(said_of(mpt({{"qk_ln", true}})), HasSubstr("attn_config.qk_ln must be false"));
  EXPECT_THAT(said_of(mpt({{"alibi", false}})), HasSubstr("attn_config.alibi must be true"));
  EXPECT_THAT(said_of(mpt({{"prefix_lm", true}})),
              HasSubstr("attn_config.prefix_lm must be false"));
  EXPECT_THAT(said_of(mpt({{"alibi_bias_max", 16}})), HasSubstr("attn_config.alibi_bias_max"));
  EXPECT_THAT(said_of(mpt({{"kv_n_heads", 1}})), HasSubstr("attn_config.kv_n_heads"));
  EXPECT_THAT(said_of(mpt(json::object(), {{"logit_scale", "inv_sqrt_d_model"}})),
              HasSubstr("logit_scale must be null"));
  EXPECT_EQ(said_beside_sizes(mpt({{"alibi", true}, {"alibi_bias_max", 8}, {"kv_n_heads", 4}})),
            "");
  EXPECT_THAT(said_of(mpt({{"sliding_window_size", 64}, {"rope", true}})),
              HasSubstr("attn_config: keys that this version neither reads nor knows: rope, "
                        "sliding_window_size"));
}

TEST(ClassicConfigs, MptsClipAndScaleAreThoseOfItsAttention) {
  const Architecture usual = test::described(mpt({{"clip_qkv", nullptr}}));
  EXPECT_EQ(usual.block(0).attention().clamp, 0);
  EXPECT_EQ(usual.block(0).attention().shape.scale, inverse_root(8));
  const Architecture own = test::described(mpt({{"clip_qkv", 0.5}, {"softmax_scale", 0.25}}));
  EXPECT_EQ(own.block(0).attention().clamp, 0.5);
  EXPECT_EQ(own.block(0).attention().shape.scale, 0.25f);
}

TEST(ClassicConfigs, OptsEmbeddingsAreNoWiderThanTheStream) {
  const auto opt = [](int64_t width) {
    return json{{"model_type", "opt"},
                {"hidden_size", 32},
                {"num_attention_heads", 4},
                {"word_embed_proj_dim", width}};
  };
  for (const int64_t wrong : {0, 33})
    EXPECT_THAT(said_of(opt(wrong)),
                AllOf(HasSubstr("word_embed_proj_dim must be between 1 and hidden_size, 32"),
                      HasSubstr(fmt::format("found {}", wrong))));
  const Architecture narrow = test::described(opt(16)), whole = test::described(opt(32));
  EXPECT_EQ(narrow.embedding.width, 16);
  EXPECT_EQ(narrow.head.in, 16);
  EXPECT_TRUE(narrow.embedding.projection.present() && narrow.head_projection.present());
  EXPECT_EQ(whole.embedding.width, 32);
  EXPECT_FALSE(whole.embedding.projection.present() || whole.head_projection.present());
}

TEST(ClassicConfigs, FalconsFourModelsDifferInNormsKeyHeadsAndOrder) {
  const auto falcon = [](const json& more) {
    json config = {{"model_type", "falcon"}, {"hidden_size", 32}, {"num_attention_heads", 4}};
    config.update(more);
    return test::described(config).decoder.kinds.at(0);
  };
  const BlockSpec b7 = falcon({{"multi_query", true}, {"parallel_attn", true}});
  EXPECT_EQ(b7.attention().shape.kv_heads, 1);
  EXPECT_TRUE(b7.branches[1].beside && b7.branches[1].same_norm);
  const BlockSpec b40 = falcon({{"new_decoder_architecture", true}, {"num_kv_heads", 2}});
  EXPECT_EQ(b40.attention().shape.kv_heads, 2);
  EXPECT_TRUE(b40.branches[1].beside && !b40.branches[1].same_norm);
  EXPECT_EQ(b40.branches[0].before.names.hugging_face, "ln_attn");
  EXPECT_EQ(b40.branches[1].before.names.hugging_face, "ln_mlp");
  const BlockSpec b11 = falcon(
      {{"new_decoder_architecture", true}, {"num_kv_heads", 2}, {"num_ln_in_parallel_attn", 1}});
  EXPECT_TRUE(b11.branches[1].beside && b11.branches[1].same_norm);
  EXPECT_EQ(b11.branches[0].before.names.hugging_face, "input_layernorm");
  const BlockSpec rw = falcon({{"multi_query", false}, {"parallel_attn", false}, {"alibi", true}});
  EXPECT_EQ(rw.attention().shape.kv_heads, 4);
  EXPECT_FALSE(rw.branches[1].beside);
  EXPECT_EQ(rw.attention().rotary, kNotRotated);
}

TEST(ClassicConfigs, SizesAreReadAndRefusedUnderTheFamilysKeys) {
  EXPECT_EQ(test::described(gpt2({{"n_inner", nullptr}})).block(0).mlp().inner, 128);
  EXPECT_EQ(test::described(gpt2({{"n_inner", 40}})).block(0).mlp().inner, 40);
  EXPECT_THAT(said_of(gpt2({{"n_embd", 30}})),
              AllOf(HasSubstr("n_embd is 30"), HasSubstr("n_head, 4")));
  EXPECT_THAT(said_of(gpt2({{"n_layer", 0}})), HasSubstr("n_layer must be between"));
}

TEST(ClassicConfigs, ATextModelOfThemWithinAnotherIsRefused) {
  for (const test::SmallModel& model : {test::small_opt(), test::small_gpt2()})
    EXPECT_THAT(said_of({{"model_type", "blip-2"}, {"text_config", model.config}}),
                AllOf(HasSubstr("config.json.text_config"),
                      HasSubstr(model.config.at("model_type").get<std::string>()),
                      HasSubstr("text and images")));
}

TEST(ClassicConfigs, AModelTypeThatNobodyReadsIsNamedBesideThoseThatAre) {
  const std::string said = said_of({{"model_type", "gpt99"}});
  EXPECT_THAT(said, AllOf(HasSubstr("config.json"), HasSubstr("'gpt99'")));
  for (const Family& family : families())
    for (const std::string& type : family.model_types)
      EXPECT_THAT(said, testing::ContainsRegex("[ ,]" + type + "(,|$)"));
}

}  // namespace
}  // namespace qlora::model
