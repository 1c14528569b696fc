#include "model/tensor_kinds.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "model/families/family.h"
#include "model/families/layer_norm_like.h"
#include "model/footprint.h"
#include "model/made_weights.h"
#include "tests/support/footprint_rows.h"

namespace qlora::model {
namespace {
using test::bytes_of;
using test::in_a_file;
using test::kinds_of;
using test::loaded;
using test::options_of;
using test::row_of;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

LlamaSizes tiny_sizes() {
  LlamaSizes sizes;
  sizes.vocab_size = 61;
  sizes.hidden_size = 32;
  sizes.intermediate_size = 48;
  sizes.num_layers = 2;
  sizes.num_heads = sizes.num_kv_heads = 4;
  sizes.head_dim = 8;
  return sizes;
}

// GPT-2's names and parts: one matrix for queries, keys and values, LayerNorms, biases everywhere.
Architecture gpt_like() {
  Architecture a = llama_like("gpt", tiny_sizes());
  a.tied_embeddings = true;
  a.embedding.names = {"transformer.wte", "token_embd"};
  a.decoder.prefix.hugging_face = "transformer.h.";
  a.decoder.final_norm.names.hugging_face = "transformer.ln_f";
  BlockSpec& block = a.decoder.kinds[0];
  block.attention_branch().before.names.hugging_face = "ln_1";
  block.mlp_branch().before.names.hugging_face = "ln_2";
  block.attention().out.names.hugging_face = "attn.c_proj";
  use_layer_norms(a);
  fuse_qkv(a, {"attn.c_attn", "attn_qkv"});
  use_plain_mlp(a, {"mlp.c_fc", "ffn_up"}, {"mlp.c_proj", "ffn_down"}, true);
  set_attention_bias(a, true, true);
  return a;
}

TEST(FootprintOfDescription, LinearLayersOfAnyNameAreQuantized) {
  const auto source = made_weights(gpt_like());
  const auto model = loaded(*source, options_of("nf4"));
  const auto rows = kept_footprint(*source, {}, {}, options_of("nf4"));
  EXPECT_THAT(kinds_of(rows),
              ElementsAre("embedding", "c_attn", "c_proj", "c_fc", "norms", "biases"));
  for (const char* kind : {"c_attn", "c_proj", "c_fc"})
    EXPECT_EQ(row_of(rows, kind).format, "nf4+dq");
  EXPECT_EQ(row_of(rows, "c_attn").parameters, 2 * 96 * 32);
  EXPECT_EQ(row_of(rows, "c_proj").count, 4);  // of attention and of the MLP
  EXPECT_EQ(bytes_of(rows), bytes_of(*model));
}

TEST(FootprintOfDescription, BiasesOfNormsCountWithThem) {
  const Architecture a = gpt_like();
  const auto model = loaded(*made_weights(a), options_of("none"));
  const auto rows = stored_footprint(in_a_file(model->frozen_state()), &a);
  EXPECT_EQ(row_of(rows, "norms").count, 5);
  EXPECT_EQ(row_of(rows, "norms").parameters, 2 * 5 * 32);
  EXPECT_EQ(row_of(rows, "biases").count, 2 * 4);
  EXPECT_EQ(row_of(rows, "biases").parameters, 2 * (96 + 32 + 48 + 32));
}

TEST(FootprintOfDescription, ExpertsAreCountedWithTheLayersOfTheirName) {
  Architecture a = llama_like("experts", tiny_sizes());
  MlpSpec& mlp = a.decoder.kinds[0].mlp();
  const auto linear = [](const std::string& name, int64_t out, int64_t in) {
    return LinearSpec{.names = {name, ""}, .out = out, .in = in};
  };
  mlp.in = {linear("mlp.gate", 2, 32),
            linear("mlp.experts.0.w1", 48, 32),
            linear("mlp.experts.1.w1", 48, 32),
            linear("mlp.experts.0.w2", 32, 48),
            linear("mlp.experts.1.w2", 32, 48),
            linear("mlp.experts.gate_up_proj", 96, 32),
            linear("mlp.shared_expert.w1", 16, 32)};
  mlp.out = linear("mlp.shared_expert.w2", 32, 16);
  const auto rows =
      stored_footprint(in_a_file({{"model.layers.0.mlp.gate.weight", {2, 32}},
                                  {"model.layers.0.mlp.experts.0.w1.weight", {48, 32}},
                                  {"model.layers.0.mlp.experts.1.w1.weight", {48, 32}},
                                  {"model.layers.0.mlp.experts.0.w2.weight", {32, 48}},
                                  {"model.layers.1.mlp.experts.1.w2.weight", {32, 48}},
                                  {"model.layers.1.mlp.experts.gate_up_proj", {4, 96, 32}},
                                  {"model.layers.0.mlp.shared_expert.w1.weight", {16, 32}}}),
                       &a);
  EXPECT_THAT(kinds_of(rows), ElementsAre("gate", "w1", "w2", "gate_up_proj"));
  EXPECT_EQ(row_of(rows, "w1").count, 3);
  EXPECT_EQ(row_of(rows, "w1").parameters, (2 * 48 + 16) * 32);
  EXPECT_EQ(row_of(rows, "gate_up_proj").parameters, 4 * 96 * 32);
  const auto kept = kept_footprint(*made_weights(a), {}, {}, options_of("nf4"));
  EXPECT_EQ(row_of(kept, "w1").format, "nf4+dq");
  EXPECT_EQ(row_of(kept, "w1").count, 2 * 3);
  EXPECT_EQ(row_of(kept, "w1").parameters, 2 * (2 * 48 + 16) * 32);
}

// The descriptions of the models in tests/data/families.json that this version reads.
std::vector<Architecture> every_family() {
  const nlohmann::json file = io::read_json_file(QLORA_SOURCE_DIR "/tests/data/families.json");
  std::vector<Architecture> all;
  for (const nlohmann::json& entry : file.at("models")) {
    const nlohmann::json& config = entry.at("config");
    const std::string type =
        config.value("text_config", config).at("model_type").get<std::string>();
    for (const Family& family : families())
      for (const std::string& read : family.model_types)
        if (read == type) all.push_back(read_architecture(io::JsonNode(config, type)));
  }
  return all;
}

TEST(FootprintOfDescription, EveryTensorOfEveryFamilyHasARow) {
  const auto all = every_family();
  ASSERT_FALSE(all.empty());
  for (const Architecture& a : all) {
    SCOPED_TRACE(a.family);
    const auto model = loaded(*made_weights(a), options_of("none"));
    const auto tensors = in_a_file(model->frozen_state());
    const auto rows = stored_footprint(tensors, &a);
    EXPECT_THAT(kinds_of(rows), Not(Contains("other")));
    EXPECT_EQ(bytes_of(rows), bytes_of(*model));
  }
}

TEST(FootprintOfDescription, EveryFamilyKeepsWhatIsLoaded) {
  for (const Architecture& a : every_family()) {
    SCOPED_TRACE(a.family);
    const auto source = made_weights(a);
    EXPECT_EQ(bytes_of(kept_footprint(*source, {}, {}, options_of("nf4"))),
              bytes_of(*loaded(*source, options_of("nf4"))));
  }
}

TEST(FootprintWithoutDescription, RowsAreTheLastPartsOfTheNames) {
  const auto tensors = in_a_file({{"transformer.wte.weight", {61, 32}},
                                  {"transformer.h.0.ln_1.weight", {32}},
                                  {"transformer.h.0.ln_1.bias", {32}},
                                  {"transformer.h.0.attn.c_attn.weight", {96, 32}},
                                  {"transformer.h.0.attn.c_attn.bias", {96}},
                                  {"transformer.h.0.mlp.experts.c_fc", {2, 48, 32}},
                                  {"transformer.h.1.attn.c_attn.weight", {96, 32}},
                                  {"transformer.mixer.layers.0.weight", {8, 8}}});
  const auto rows = stored_footprint(tensors, nullptr);
  EXPECT_EQ(row_of(rows, "wte").parameters, 61 * 32);
  EXPECT_EQ(row_of(rows, "c_attn").count, 2);
  EXPECT_EQ(row_of(rows, "c_attn").parameters, 2 * 96 * 32);
  EXPECT_EQ(row_of(rows, "c_fc").parameters, 2 * 48 * 32);
  EXPECT_EQ(row_of(rows, "layers").parameters, 8 * 8);
  EXPECT_EQ(row_of(rows, "norms").count, 1);
  EXPECT_EQ(row_of(rows, "norms").parameters, 2 * 32);
  EXPECT_EQ(row_of(rows, "biases").parameters, 96);
  EXPECT_EQ(test::total_bytes(rows), test::total_bytes(tensors));
}

TEST(FootprintWithoutDescription, ADamagedStateOfAPackedLayerIsNamed) {
  const std::string state = "a.q_proj.weight.quant_state.bitsandbytes__nf4";
  const auto expect_refused = [&](const std::string& json) {
    at::Tensor bytes = at::empty({static_cast<int64_t>(json.size())}, at::kByte);
    std::ranges::copy(json, bytes.mutable_data_ptr<uint8_t>());
    const auto tensors = in_a_file(quant::NamedTensors{{state, bytes}});
    try {
      stored_footprint(tensors, nullptr);
      ADD_FAILURE() << "accepted: " << json;
    } catch (const FormatError& error) {
      EXPECT_THAT(error.what(), HasSubstr(state));
    }
  };
  expect_refused("{{{");
  expect_refused(R"({"blocksize": 64})");
  expect_refused(R"({"shape": [4294967296, 4294967296, 4294967296]})");
}

}  // namespace
}  // namespace qlora::model
