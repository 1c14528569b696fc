#include "model/position_limit.h"

#include <gtest/gtest.h>

#include "tests/support/small_models.h"

namespace qlora::model {
namespace {
using nlohmann::json;

PositionLimit limit_of(int64_t max_positions, const json& rope) {
  json config = test::small_ministral3(0.0).config;
  config["model_type"] = "llama";
  config["max_position_embeddings"] = max_positions;
  if (rope.is_null())
    config.erase("rope_parameters");
  else
    config["rope_parameters"] = rope;
  return position_limit(test::described(config));
}

json scaled(const char* type, double factor, int64_t original = 0) {
  json rope = {{"rope_type", type}, {"rope_theta", 10000.0}, {"factor", factor}};
  if (original > 0) rope["original_max_position_embeddings"] = original;
  if (std::string(type) == "llama3") {
    rope["low_freq_factor"] = 1.0;
    rope["high_freq_factor"] = 4.0;
  }
  if (std::string(type) == "longrope")
    rope["short_factor"] = rope["long_factor"] = {1.0, 1.0, 1.0, 1.0};
  return rope;
}

TEST(PositionLimit, IsWhatTheFileSaysWhereNothingIsScaled) {
  const PositionLimit limit = limit_of(64, nullptr);
  EXPECT_EQ(limit.tokens, 64);
  EXPECT_EQ(limit.sentence(), "max_position_embeddings of the model is 64");
}

TEST(PositionLimit, OfScaledContextsIsWhereTheScalingReaches) {
  const PositionLimit yarn = limit_of(64, scaled("yarn", 4, 64));
  EXPECT_EQ(yarn.tokens, 256);
  EXPECT_EQ(yarn.said_by, "RoPE scaling yarn: 4 times 64");
  EXPECT_EQ(yarn.sentence(), "the model reaches 256 tokens (RoPE scaling yarn: 4 times 64)");
  EXPECT_EQ(limit_of(80, scaled("yarn", 4, 64)).tokens, 256);  // as Qwen3 with yarn added
  const PositionLimit said = limit_of(256, scaled("yarn", 4, 64));
  EXPECT_EQ(said.tokens, 256);
  EXPECT_EQ(said.said_by, "max_position_embeddings");
  EXPECT_EQ(limit_of(512, scaled("yarn", 4, 64)).tokens, 512);
  EXPECT_EQ(limit_of(64, scaled("linear", 4)).tokens, 256);
  // Llama 3.2 says 131072, with the factor 32 and the context 8192.
  EXPECT_EQ(limit_of(131072, scaled("llama3", 32, 8192)).tokens, 131072);
  EXPECT_EQ(limit_of(8192, scaled("llama3", 8, 8192)).tokens, 65536);
  EXPECT_EQ(limit_of(64, scaled("longrope", 4, 16)).tokens, 64);
}

TEST(PositionLimit, DynamicRopeAndAlibiHaveNone) {
  EXPECT_TRUE(limit_of(64, scaled("dynamic", 4)).is_any());
  EXPECT_TRUE(position_limit(test::described(test::small_bloom().config)).is_any());
  json falcon = test::small_falcon().config;
  EXPECT_FALSE(position_limit(test::described(falcon)).is_any());
  falcon["alibi"] = true;
  EXPECT_TRUE(position_limit(test::described(falcon)).is_any());
}

TEST(PositionLimit, LearnedPositionsEndWithTheirTable) {
  for (const json& config : {test::small_gpt2().config, test::small_opt().config}) {
    const PositionLimit limit = position_limit(test::described(config));
    EXPECT_EQ(limit.tokens, 24);
    EXPECT_EQ(limit.sentence(), "max_position_embeddings of the model is 24");
  }
}

// Gemma 3: full layers are scaled to what the file says, sliding ones are not scaled.
TEST(PositionLimit, OfLayersThatTurnOtherwiseIsTheLeast) {
  Architecture a = test::described(test::small_ministral3(0.0).config);
  a.max_positions = 64;
  a.rotaries.resize(1);
  a.rotaries[0].rope = RopeConfig();
  a.rotaries[0].rope.type = "linear";
  a.rotaries[0].rope.factor = 8;
  EXPECT_EQ(position_limit(a).tokens, 512);
  a.rotaries.push_back(a.rotaries[0]);
  a.rotaries[1].rope = RopeConfig();
  EXPECT_EQ(position_limit(a).tokens, 64);
}

}  // namespace
}  // namespace qlora::model
