// RoPE in the config.json of each family. What transformers 5 makes of the same keys (its
// config.rope_parameters) is what is expected.
#include "model/families/rope_keys.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/families/config_writer.h"

namespace qlora::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

io::JsonNode node_of(const json& keys) {
  static int count = 0;  // a warning is said once a file
  return {keys, fmt::format("rope-{}.json", ++count)};
}

RotarySpec read(const json& keys, const RopeDefaults& defaults = {},
                const RopeSizes& sizes = {16}) {
  return read_rope_keys(node_of(keys), sizes, defaults);
}

std::string said(const std::function<void()>& read) {
  testing::internal::CaptureStderr();
  read();
  return testing::internal::GetCapturedStderr();
}

TEST(RopeKeysOfFamilies, AFamilysDefaultsStandWhereTheFileSaysNothing) {
  const RotarySpec spec =
      read(json::object(), {.theta = 5e5, .partial_factor = 0.5, .pairs = true});
  EXPECT_EQ(spec.rope.theta, 5e5);
  EXPECT_EQ(spec.width, 8);
  EXPECT_TRUE(spec.pairs);
}

TEST(RopeKeysOfFamilies, ThePartWithinGoesBeforeTheOneBeside) {
  EXPECT_EQ(read({{"partial_rotary_factor", 0.75}}, {.partial_factor = 0.25}).width, 12);
  EXPECT_EQ(read({{"rope_parameters", {{"partial_rotary_factor", 0.25}}}}).width, 4);
  const json both = {{"rope_parameters", {{"partial_rotary_factor", 0.25}}},
                     {"partial_rotary_factor", 0.5}};
  EXPECT_THAT(said([&] { EXPECT_EQ(read(both).width, 4); }), HasSubstr("partial_rotary_factor"));
}

TEST(RopeKeysOfFamilies, AFamilysOwnWordsForThemAreRead) {
  const RopeDefaults neox{
      .partial_factor = 0.25, .theta_key = "rotary_emb_base", .partial_key = "rotary_pct"};
  const RotarySpec spec = read({{"rotary_emb_base", 2e4}, {"rotary_pct", 0.5}}, neox);
  EXPECT_EQ(spec.rope.theta, 2e4);
  EXPECT_EQ(spec.width, 8);
}

TEST(RopeKeysOfFamilies, APartThatIsNoEvenNumberOfElementsIsRefused) {
  for (const double factor : {0.2, 0.0, -0.5, 1.5})
    EXPECT_THAT(
        [&] {
          read({{"partial_rotary_factor", factor}});
        },
        ThrowsMessage<FormatError>(
            AllOf(HasSubstr("partial_rotary_factor"), HasSubstr("16 elements"))));
}

TEST(RopeKeysOfFamilies, YarnHasItsDefaults) {
  const RotarySpec spec =
      read({{"rope_scaling", {{"type", "yarn"}, {"factor", 8.0}}}}, {}, {16, 512});
  EXPECT_EQ(spec.rope.type, "yarn");
  EXPECT_EQ(spec.rope.original_max_positions, 512);
  EXPECT_EQ(spec.rope.beta_fast, 32);
  EXPECT_EQ(spec.rope.beta_slow, 1);
  EXPECT_TRUE(spec.rope.truncate);
  EXPECT_NEAR(spec.rope.attention_factor, 1.2079441541679836, 1e-15);  // 0.1 ln 8 + 1
}

TEST(RopeKeysOfFamilies, YarnsKeysAreRead) {
  json yarn = {
      {"rope_type", "yarn"}, {"factor", nullptr},     {"original_max_position_embeddings", 128},
      {"beta_fast", 16.0},   {"beta_slow", 2.0},      {"truncate", false},
      {"mscale", 1.0},       {"mscale_all_dim", 0.5}, {"llama_4_scaling_beta", 0.1}};
  const auto read_yarn = [&] {
    return read({{"rope_parameters", yarn}}, {.read_elsewhere = {"llama_4_scaling_beta"}},
                {16, 2048});
  };
  EXPECT_EQ(said([&] {
              const RopeConfig rope = read_yarn().rope;
              EXPECT_EQ(rope.factor, 16);  // 2048 / 128
              EXPECT_EQ(rope.beta_fast, 16);
              EXPECT_EQ(rope.beta_slow, 2);
              EXPECT_FALSE(rope.truncate);
              EXPECT_NEAR(rope.attention_factor, 1.121751143713058, 1e-15);
            }),
            "");
  yarn["attention_factor"] = 0.5;
  EXPECT_EQ(read_yarn().rope.attention_factor, 0.5);
}

json longrope() {
  return {{"type", "su"}, {"short_factor", {1.0, 1.5}}, {"long_factor", {2.0, 8.0}}};
}

TEST(RopeKeysOfFamilies, LongRopeIsReadUnderItsOldNames) {
  json keys = {{"rope_scaling", longrope()},
               {"original_max_position_embeddings", 64},
               {"partial_rotary_factor", 0.25}};
  for (const char* type : {"su", "yarn", "longrope"}) {
    keys["rope_scaling"]["type"] = type;
    const RopeConfig rope = read(keys, {.yarn_is_longrope = true}, {16, 256}).rope;
    EXPECT_EQ(rope.type, "longrope");
    EXPECT_EQ(rope.short_factor, (std::vector<float>{1.0f, 1.5f}));
    EXPECT_EQ(rope.long_factor, (std::vector<float>{2.0f, 8.0f}));
    EXPECT_EQ(rope.original_max_positions, 64);
    EXPECT_NEAR(rope.attention_factor, 1.1547005383792517, 1e-15);  // sqrt(1 + ln 4 / ln 64)
  }
  keys["rope_scaling"]["factor"] = 1.0;
  EXPECT_EQ(read(keys, {}, {16, 256}).rope.attention_factor, 1);
}

TEST(RopeKeysOfFamilies, FactorsThatAreNotOneForEachFrequencyAreRefused) {
  json keys = {{"rope_scaling", longrope()}};
  EXPECT_THAT([&] { read(keys); },
              ThrowsMessage<FormatError>(AllOf(HasSubstr("short_factor"), HasSubstr("8 numbers"))));
  keys["partial_rotary_factor"] = 0.25;
  keys["rope_scaling"]["long_factor"] = {1.0, 0.0};
  EXPECT_THAT([&] { read(keys); }, ThrowsMessage<FormatError>(HasSubstr("long_factor[1]")));
  keys["rope_scaling"].erase("long_factor");
  EXPECT_THAT([&] { read(keys); }, ThrowsMessage<FormatError>(HasSubstr("long_factor")));
}

TEST(RopeKeysOfFamilies, DynamicScalingBeginsBeyondTheModelsPositions) {
  const RotarySpec spec =
      read({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}, {}, {16, 128});
  EXPECT_EQ(spec.rope.type, "dynamic");
  EXPECT_EQ(spec.rope.original_max_positions, 128);
}

TEST(RopeKeysOfFamilies, LayersTypesHaveTheirOwn) {
  const LayerRotaries both = read_layer_rope_keys(
      node_of(
          {{"rope_parameters",
            {{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 2e6}}},
             {"sliding_attention", {{"rope_type", "default"}}}}}}),
      {16}, {.theta = 1e6}, {.theta = 1e4, .theta_key = "rope_local_base_freq"});
  EXPECT_EQ(both.full.rope.type, "linear");
  EXPECT_EQ(both.full.rope.theta, 2e6);
  EXPECT_EQ(both.full.rope.factor, 8);
  EXPECT_EQ(both.sliding.rope.type, "default");
  EXPECT_EQ(both.sliding.rope.theta, 1e4);
}

// Gemma3TextConfig(rope_theta=1e6, rope_local_base_freq=5e3, rope_scaling=...) of transformers 5.
TEST(RopeKeysOfFamilies, OlderFilesScaleFullLayersAlone) {
  const LayerRotaries both = read_layer_rope_keys(
      node_of({{"rope_theta", 2e6},
               {"rope_local_base_freq", 5e3},
               {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}),
      {16}, {.theta = 1e6}, {.theta = 1e4, .theta_key = "rope_local_base_freq"});
  EXPECT_EQ(both.full.rope.type, "linear");
  EXPECT_EQ(both.full.rope.theta, 2e6);
  EXPECT_EQ(both.sliding.rope.type, "default");
  EXPECT_EQ(both.sliding.rope.theta, 5e3);
}

TEST(RopeKeysOfFamilies, ScalingIsLaidOverTheParametersOfFullLayers) {
  const LayerRotaries both = read_layer_rope_keys(
      node_of({{"rope_parameters", {{"full_attention", {{"rope_theta", 3e6}}}}},
               {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}),
      {16}, {.theta = 1e6}, {.theta = 1e4});
  EXPECT_EQ(both.full.rope.type, "linear");
  EXPECT_EQ(both.full.rope.theta, 3e6);
}

TEST(RopeKeysOfFamilies, ADictionaryOfTheOtherShapeIsRefused) {
  const json by_layer = {{"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}}};
  EXPECT_THAT([&] { read(by_layer); }, ThrowsMessage<FormatError>(HasSubstr("rope_parameters")));
  const json flat = {{"rope_parameters", {{"rope_theta", 1e6}}}};
  EXPECT_THAT([&] { read_layer_rope_keys(node_of(flat), {16}, {}, {}); },
              ThrowsMessage<FormatError>(
                  AllOf(HasSubstr("rope_parameters.rope_theta"), HasSubstr("full_attention"))));
}

TEST(RopeKeysOfFamilies, WhatIsWrittenIsReadAgainAsTheSame) {
  const std::vector<json> scalings = {{{"rope_type", "linear"}, {"factor", 4.0}},
                                      {{"rope_type", "dynamic"}, {"factor", 4.0}},
                                      {{"rope_type", "llama3"},
                                       {"factor", 8.0},
                                       {"low_freq_factor", 1.0},
                                       {"high_freq_factor", 4.0},
                                       {"original_max_position_embeddings", 512}},
                                      {{"rope_type", "yarn"},
                                       {"factor", 4.0},
                                       {"truncate", false},
                                       {"mscale", 1.0},
                                       {"mscale_all_dim", 0.5}},
                                      {{"rope_type", "longrope"},
                                       {"short_factor", {1.0, 1.5}},
                                       {"long_factor", {2.0, 8.0}},
                                       {"original_max_position_embeddings", 512}}};
  for (const json& scaling : scalings) {
    const RotarySpec before = read({{"rope_scaling", scaling}}, {}, {4});
    const json written = json::parse(rope_dictionary(before.rope).json().dump());
    const RotarySpec after = read({{"rope_scaling", written}}, {}, {4});
    for (const int64_t length : {100, 5000})
      EXPECT_EQ(inverse_frequencies(after.rope, 4, length),
                inverse_frequencies(before.rope, 4, length))
          << scaling;
    EXPECT_EQ(after.rope.attention_factor, before.rope.attention_factor) << scaling;
  }
  EXPECT_EQ(rope_dictionary(RopeConfig{}).json().dump(), R"({"rope_type":"default"})");
}

}  // namespace
}  // namespace qlora::model
