// Two places say the same thing of a model, and differently.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/families/family.h"
#include "model/families/rope_keys.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using nlohmann::json;
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

// The tiny model's directory with its files changed.
class DisagreeingSources : public testing::Test {
 protected:
  void SetUp() override { test::write_tiny_directory(dir / "m"); }

  void edit_config(const std::function<void(json&)>& edit) {
    json config = json::parse(test::read_file(dir / "m/config.json"));
    edit(config);
    dir.write("m/config.json", config.dump());
  }

  void edit_tensors(const std::function<void(quant::NamedTensors&)>& edit) {
    const std::string path = dir / "m/model.safetensors";
    quant::NamedTensors tensors = quant::read_tensors(path);
    edit(tensors);
    quant::write_tensors(path, tensors);
  }

  void add(const std::string& name, const at::Tensor& value) {
    edit_tensors([&](quant::NamedTensors& tensors) { tensors.emplace_back(name, value); });
  }

  at::Tensor embedding() const {
    for (const auto& [name, tensor] : quant::read_tensors(dir / "m/model.safetensors"))
      if (name == "model.embed_tokens.weight") return tensor;
    return {};
  }

  // Loaded, and what was said.
  std::unique_ptr<CausalLm> load() {
    testing::internal::CaptureStderr();
    std::unique_ptr<CausalLm> loaded;
    try {
      loaded = load_model(*open_weights(dir / "m"), {}, {}, at::kCPU, at::kFloat);
    } catch (...) {
      said = testing::internal::GetCapturedStderr();
      throw;
    }
    said = testing::internal::GetCapturedStderr();
    return loaded;
  }

  test::TempDir dir;
  std::string said;
};

at::Tensor head_of(const CausalLm& model) {
  const quant::FrozenWeight& head = *model.head.layers().front().base;
  at::Tensor dense = at::empty({head.out_features(), head.in_features()}, at::kFloat);
  head.dequantize_rows(0, 0, head.out_features(), dense);
  return dense;
}

TEST_F(DisagreeingSources, AHeadOfItsOwnIsUsedThoughTheConfigurationTiesIt) {
  const at::Tensor other = embedding().neg();
  add("lm_head.weight", other);
  const auto model = load();
  EXPECT_FALSE(model->architecture().tied_embeddings);
  EXPECT_TRUE(at::equal(head_of(*model), other.to(at::kFloat)));
  EXPECT_THAT(said, AllOf(HasSubstr("tie_word_embeddings"), HasSubstr("lm_head.weight")));
}

TEST_F(DisagreeingSources, AHeadMayDifferInItsLastNumberAlone) {
  const at::Tensor other = embedding().to(at::kFloat);
  other[-1][-1] += 1;
  add("lm_head.weight", other);
  EXPECT_FALSE(load()->architecture().tied_embeddings);
}

TEST_F(DisagreeingSources, AnEqualHeadStaysTied) {
  add("lm_head.weight", embedding().to(at::kFloat));
  EXPECT_TRUE(load()->architecture().tied_embeddings);
  EXPECT_EQ(said, "");
}

TEST_F(DisagreeingSources, TiedEmbeddingsMayLieUnderTheHeadsNameAlone) {
  const at::Tensor wanted = embedding().to(at::kFloat);
  edit_tensors([](quant::NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors)
      if (name == "model.embed_tokens.weight") name = "lm_head.weight";
  });
  const auto model = load();
  EXPECT_TRUE(model->architecture().tied_embeddings);
  EXPECT_TRUE(at::equal(model->embedding.weight.to(at::kFloat), wanted));
}

TEST_F(DisagreeingSources, BiasesThatTheConfigurationDeniesAreRefused) {
  add("model.layers.0.self_attn.q_proj.bias", at::ones({32}, at::kBFloat16));
  EXPECT_THAT([&] { load(); }, ThrowsMessage<FormatError>(
                                   AllOf(HasSubstr("attention_bias"), HasSubstr("q_proj.bias"))));
}

TEST_F(DisagreeingSources, BiasesOfQAndKAndVNeedNoneOfO) {
  edit_config([](json& config) { config["attention_bias"] = true; });
  edit_tensors([](quant::NamedTensors& tensors) {
    for (int layer = 0; layer < 2; ++layer)
      for (const auto& [name, size] : {std::pair("q", 32), std::pair("k", 16), std::pair("v", 16)})
        tensors.emplace_back(fmt::format("model.layers.{}.self_attn.{}_proj.bias", layer, name),
                             at::full({size}, 0.5, at::kBFloat16));
  });
  const auto model = load();
  EXPECT_THAT(said, HasSubstr("there is no model.layers.0.self_attn.o_proj.bias, "
                              "model.layers.1.self_attn.o_proj.bias; taken as zero"));
  const auto& layer = model->layers[1];
  EXPECT_TRUE(at::equal(layer.branches[0].in.layers()[1].bias, at::full({16}, 0.5, at::kBFloat16)));
  EXPECT_TRUE(at::equal(layer.branches[0].out.layers()[0].bias, at::zeros({32}, at::kBFloat16)));
}

TEST_F(DisagreeingSources, BiasesThatTheConfigurationLeavesOpenAreUsed) {
  edit_config([](json& config) { config.erase("attention_bias"); });
  add("model.layers.0.self_attn.q_proj.bias", at::ones({32}, at::kBFloat16));
  EXPECT_TRUE(load()->layers[0].branches[0].in.layers()[0].bias.defined());
  EXPECT_THAT(said, HasSubstr("attention_bias is not in config.json"));
}

TEST_F(DisagreeingSources, PackedWeightsWithoutAWordInTheConfigurationAreNamed) {
  edit_tensors([](quant::NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors)
      if (name.ends_with("layers.0.self_attn.q_proj.weight"))
        tensor = at::zeros({512, 1}, at::kByte);
  });
  EXPECT_THAT([&] { load(); }, ThrowsMessage<FormatError>(AllOf(HasSubstr("q_proj.weight"),
                                                                HasSubstr("quantization_config"))));
}

TEST_F(DisagreeingSources, FloatsUnderAConfigurationThatSaysPackedAreToldOf) {
  edit_config([](json& config) {
    config["quantization_config"] = {
        {"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}};
  });
  load();
  EXPECT_THAT(said, AllOf(HasSubstr("quantized (bitsandbytes nf4), and not one of them is"),
                          HasSubstr("section quantization")));
}

TEST_F(DisagreeingSources, TwoConfigurationsOfThePackingAreCompared) {
  const json packing = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 32}, {"sym", true}};
  edit_config([&](json& config) { config["quantization_config"] = packing; });
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    json beside = {{"w_bit", 4}, {"q_group_size", 64}, {"sym", true}};
    dir.write(std::string("m/") + name, beside.dump());
    load();
    EXPECT_THAT(
        said, AllOf(HasSubstr("quantization_config.group_size is 32, and "),
                    HasSubstr(std::string(name) + ".q_group_size is 64"), Not(HasSubstr("w_bit"))));
    beside["q_group_size"] = 32;
    dir.write(std::string("m/") + name, beside.dump());
    load();
    EXPECT_THAT(said, Not(HasSubstr(name)));
    dir.write(std::string("m/") + name, "{\"bits\": ");  // a download that broke off
    EXPECT_NO_THROW(load()) << name;
    fs::remove(dir / (std::string("m/") + name));
  }
}

TEST_F(DisagreeingSources, MlxsPackingIsNamed) {
  const json packing = {{"group_size", 64}, {"bits", 4}};
  edit_config([&](json& config) {
    config["quantization"] = packing;
    config["quantization_config"] = packing;  // newer versions write both
  });
  EXPECT_THAT([&] { load(); },
              ThrowsMessage<FormatError>(AllOf(HasSubstr("MLX"), HasSubstr("config.json"))));
}

TEST_F(DisagreeingSources, AHiddenSizeThatTheHeadsDoNotDivideIsRefused) {
  edit_config([](json& config) {
    config.erase("head_dim");
    config["num_attention_heads"] = 5;
    config["num_key_value_heads"] = 5;
  });
  EXPECT_THAT([&] { load(); }, ThrowsMessage<FormatError>(AllOf(HasSubstr("hidden_size"),
                                                                HasSubstr("num_attention_heads"))));
}

// Expected values: LlamaConfig(**keys).rope_parameters of transformers 5.
struct Rope {
  RopeConfig config;
  std::string said;
};

Rope rope_of(const json& keys) {
  static int count = 0;  // a warning is said once a file
  const io::JsonNode node(keys, fmt::format("config-{}.json", ++count));
  testing::internal::CaptureStderr();
  try {
    const RopeConfig config = read_rope_keys(node, {64, 2048}, {.whole_heads = true}).rope;
    return {config, testing::internal::GetCapturedStderr()};
  } catch (...) {
    testing::internal::GetCapturedStderr();
    throw;
  }
}

TEST(RopeKeys, RopeScalingGoesBeforeRopeParameters) {
  const Rope rope = rope_of({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}},
                             {"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}});
  EXPECT_EQ(rope.config.type, "linear");
  EXPECT_EQ(rope.config.factor, 4.0);
  EXPECT_EQ(rope.config.theta, 10000.0);
  EXPECT_THAT(rope.said, AllOf(HasSubstr("rope_scaling"), HasSubstr("rope_parameters")));
}

TEST(RopeKeys, TwoThatAgreeAreNotSpokenOf) {
  const json linear = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 10000.0}};
  const Rope rope = rope_of({{"rope_parameters", linear},
                             {"rope_theta", 10000},
                             {"rope_scaling", {{"type", "linear"}, {"factor", 4}}}});
  EXPECT_EQ(rope.config.type, "linear");
  EXPECT_EQ(rope.said, "");
}

TEST(RopeKeys, AnEmptyOrNullScalingIsNone) {
  for (const json& none : {json(nullptr), json::object()}) {
    const Rope rope = rope_of({{"rope_parameters", {{"rope_theta", 5e5}}}, {"rope_scaling", none}});
    EXPECT_EQ(rope.config.theta, 5e5);
    EXPECT_EQ(rope.said, "");
  }
}

TEST(RopeKeys, TheThetaWithinGoesBeforeTheOneBeside) {
  const Rope rope = rope_of({{"rope_parameters", {{"rope_theta", 5e5}}}, {"rope_theta", 1e4}});
  EXPECT_EQ(rope.config.theta, 5e5);
  EXPECT_THAT(rope.said, AllOf(HasSubstr("rope_parameters.rope_theta is 500000"),
                               HasSubstr("rope_theta is 10000")));
}

TEST(RopeKeys, TheOriginalContextBesideGoesBeforeTheOneWithin) {
  json keys = {{"rope_scaling",
                {{"rope_type", "llama3"},
                 {"factor", 8.0},
                 {"low_freq_factor", 1.0},
                 {"high_freq_factor", 4.0},
                 {"original_max_position_embeddings", 8192}}}};
  EXPECT_EQ(rope_of(keys).config.original_max_positions, 8192);
  keys["original_max_position_embeddings"] = 4096;
  const Rope rope = rope_of(keys);
  EXPECT_EQ(rope.config.original_max_positions, 4096);
  EXPECT_THAT(rope.said, HasSubstr("original_max_position_embeddings"));
}

TEST(RopeKeys, KeysOfAnotherScalingAreNamed) {
  const Rope rope = rope_of(
      {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"attention_factor", 0.5}}}});
  EXPECT_THAT(rope.said, HasSubstr("attention_factor"));
}

TEST(RopeKeys, PartsOfHeadsAndScalingsThatAreNotKnownAreRefused) {
  EXPECT_THAT(
      [] {
        rope_of({{"rope_parameters", {{"partial_rotary_factor", 0.5}}}});
      },
      ThrowsMessage<FormatError>(HasSubstr("partial_rotary_factor")));
  EXPECT_THAT(
      [] {
        rope_of({{"rope_scaling", {{"type", "axial"}, {"factor", 2}}}});
      },
      ThrowsMessage<FormatError>(HasSubstr("axial")));
}

TEST(RopeKeys, NumbersThatMakeNoFrequenciesAreRefused) {
  for (const double factor : {0.0, -2.0}) {
    EXPECT_THAT(
        [&] {
          rope_of({{"rope_scaling", {{"type", "linear"}, {"factor", factor}}}});
        },
        ThrowsMessage<FormatError>(HasSubstr("factor must be a number above 0")));
  }
}

TEST(RopeConfig, RopeWhoseFrequenciesAreNotFiniteIsRefused) {
  const auto complaint = [](const std::function<void(RopeConfig&)>& edit) -> std::string {
    RopeConfig rope;
    edit(rope);
    try {
      validate(RotarySpec{.rope = rope, .width = 64}, "config.json");
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(complaint([](RopeConfig&) {}), "accepted");
  EXPECT_THAT(complaint([](RopeConfig& rope) { rope.theta = 1e39; }), HasSubstr("rope_theta"));
  EXPECT_THAT(complaint([](RopeConfig& rope) { rope.factor = 0; }), HasSubstr("factor"));
  EXPECT_THAT(complaint([](RopeConfig& rope) { rope.factor = -1; }), HasSubstr("factor"));
  EXPECT_THAT(complaint([](RopeConfig& rope) { rope.high_freq_factor = 1; }),
              HasSubstr("high_freq_factor"));
  EXPECT_THAT(complaint([](RopeConfig& rope) { rope.original_max_positions = 0; }),
              HasSubstr("original_max_position_embeddings"));
}

}  // namespace
}  // namespace qlora::model
