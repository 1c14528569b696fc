// Models of GGUF files as Hugging Face directories: the config.json that is written says of every
// family what the GGUF file said, and the tensors are the same.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "export/config_file.h"
#include "export/gguf_model.h"
#include "export/merged.h"
#include "model/families/family.h"
#include "model/hugging_face_config.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::exporting {
namespace {
using nlohmann::json;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

std::unique_ptr<model::CausalLm> loaded(model::WeightSource& source,
                                        const std::string& dtype = "float32") {
  model::ModelOptions options;
  options.dtype = dtype;
  quant::QuantizationOptions none;
  none.method = "none";
  return model::load_model(source, options, none, at::kCPU, at::kFloat);
}

// Made weights repeat their rows, and have norms of ones and biases of zeros: each number becomes
// another one.
void tell_apart(model::CausalLm& model) {
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model.frozen_state())
    at::Tensor(tensor).add_(
        at::sin(at::arange(tensor.numel(), at::kFloat).mul_(1.7)).view(tensor.sizes()),
        tensor.dim() == 1 ? 0.1 : 0.02);
}

class MergedGguf : public ::testing::Test {
 protected:
  MergedGguf() {
    test::write_tiny_directory(dir_ / "tokenizer");
    tokenizer_ = data::load_tokenizer(dir_ / "tokenizer");
  }

  std::string gguf_of(const model::Architecture& architecture, const std::string& type = "f32") {
    const auto model = loaded(*model::made_weights(architecture));
    tell_apart(*model);
    const std::string path = dir_ / "model.gguf";
    write_gguf_model(path, *model, *tokenizer_, nullptr, "a model", gguf_type(type));
    return path;
  }

  // The family that the GGUF file was read as.
  std::string expect_same_directory(const std::string& gguf, const std::string& name) {
    const auto source = model::open_weights(gguf);
    const auto wanted = loaded(*source);
    std::filesystem::remove_all(dir_ / "merged");
    std::filesystem::create_directory(dir_ / "merged");
    write_merged(dir_ / "merged", *wanted, *tokenizer_, nullptr, gguf, at::kFloat);
    const auto written = model::open_weights(dir_ / "merged");
    const auto found = loaded(*written);
    EXPECT_EQ(model::first_difference_in_files(wanted->architecture(), found->architecture()), "")
        << name;
    EXPECT_THAT(written->unread(), IsEmpty()) << name;
    expect_same_tensors(*wanted, *found, name);
    return wanted->architecture().family;
  }

  static void expect_same_tensors(const model::CausalLm& wanted, const model::CausalLm& found,
                                  const std::string& name) {
    const quant::NamedTensors a = wanted.frozen_state(), b = found.frozen_state();
    ASSERT_EQ(a.size(), b.size()) << name;
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].first, b[i].first) << name;
      EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << name << ": " << a[i].first;
    }
  }

  const TempDir dir_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
};

// Without what GGUF has no words for.
json as_gguf_can_say(json config) {
  const std::string type = config["model_type"];
  // A file holds what divides the frequencies; that they are Llama 3's is seen by its own numbers.
  if (config.contains("rope_parameters") && config["rope_parameters"].contains("low_freq_factor"))
    config["rope_parameters"]["original_max_position_embeddings"] = 8192;
  if (type == "gpt_oss") {
    config["swiglu_limit"] = 7.0;
    config["rope_parameters"]["beta_fast"] = 32.0;
    config["rope_parameters"]["beta_slow"] = 1.0;
  } else if (type == "ministral3") {
    config["sliding_window"] = nullptr;
  } else if (type == "qwen2_moe") {
    config["mlp_only_layers"] = json::array();
    config["decoder_sparse_step"] = 1;
    config["use_sliding_window"] = false;
    config["norm_topk_prob"] = false;
    config.erase("layer_types");
  }
  return config;
}

TEST_F(MergedGguf, OfEveryFamilyIsTheModelOfTheFile) {
  const json all = json::parse(test::read_file(QLORA_SOURCE_DIR "/tests/data/families.json"));
  std::set<std::string> families;
  for (const json& entry : all["models"]) {
    const std::string name = entry["name"];
    const json config = as_gguf_can_say(entry["config"]);
    std::string gguf;
    try {
      gguf = gguf_of(model::read_architecture(io::JsonNode(config, name)));
    } catch (const ConfigError&) {
      continue;  // GGUF has no words for it (GgufFamilies)
    }
    SCOPED_TRACE(name);
    families.insert(expect_same_directory(gguf, name));
  }
  for (const model::Family& family : model::families()) {
    if (family.gguf_architectures.empty()) continue;
    EXPECT_TRUE(families.contains(family.name)) << family.name;
  }
  EXPECT_TRUE(families.contains("mixtral"));
}

// The large matrices alone say of what type the model is; norms, biases, routers and positions are
// float32 beside any of them, and keep their bits.
TEST_F(MergedGguf, FilesInBfloat16KeepWhatTheyHaveInFloat32) {
  const json all = json::parse(test::read_file(QLORA_SOURCE_DIR "/tests/data/families.json"));
  int files = 0;
  for (const json& entry : all["models"]) {
    const std::string name = entry["name"];
    SCOPED_TRACE(name);
    std::string gguf;
    try {
      gguf = gguf_of(model::read_architecture(io::JsonNode(as_gguf_can_say(entry["config"]), name)),
                     "bf16");
    } catch (const ConfigError&) {
      continue;
    }
    ++files;
    const auto source = model::open_weights(gguf);
    EXPECT_EQ(source->dtype(), at::kBFloat16);
    const auto wanted = loaded(*source), found = loaded(*source, "auto");
    const quant::NamedTensors a = wanted->frozen_state(), b = found->frozen_state();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      const auto& [tensor, value] = b[i];
      EXPECT_TRUE(at::equal(a[i].second.to(value.scalar_type()), value)) << tensor;
      const bool is_small = value.dim() == 1 || tensor == "transformer.wpe.weight" ||
                            tensor.ends_with("mlp.gate.weight");
      EXPECT_EQ(value.scalar_type(), is_small ? at::kFloat : value.scalar_type()) << tensor;
    }
  }
  EXPECT_GT(files, 20);
}

TEST_F(MergedGguf, OfGptOssInMxfp4HasTheExpertsDecoded) {
  test::write_mxfp4_directory(dir_ / "experts");
  test::write_mxfp4_gguf(dir_ / "experts", dir_ / "experts.gguf");
  EXPECT_EQ(expect_same_directory(dir_ / "experts.gguf", "gpt_oss"), "gpt_oss");
}

TEST_F(MergedGguf, ItsConfigNamesTheClassAndTheTokensThatTheFileHas) {
  const std::string gguf = gguf_of(test::described({{"model_type", "qwen2"},
                                                    {"vocab_size", 258},
                                                    {"hidden_size", 32},
                                                    {"intermediate_size", 48},
                                                    {"num_hidden_layers", 2},
                                                    {"num_attention_heads", 4},
                                                    {"num_key_value_heads", 2},
                                                    {"rms_norm_eps", 1e-5},
                                                    {"rope_theta", 1e6}}));
  const auto source = model::open_weights(gguf);
  const json config = json::parse(
      config_text(source->architecture(), *tokenizer_, gguf, at::kBFloat16, std::nullopt, false));
  EXPECT_EQ(config["architectures"], json::array({"Qwen2ForCausalLM"}));
  EXPECT_EQ(config["model_type"], "qwen2");
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
  EXPECT_EQ(config["eos_token_id"], 257);
  EXPECT_TRUE(config.at("pad_token_id").is_null());
  // GGUF has 9.99999974737875e-06.
  EXPECT_EQ(config["rms_norm_eps"].dump(), "1e-05");
  EXPECT_EQ(config["rope_theta"], 1e6);
}

TEST_F(MergedGguf, WhatAConfigCannotSayIsRefusedByName) {
  const auto refused = [](const model::Architecture& a, const char* what) {
    EXPECT_THAT([&] { model::hugging_face_config(a); },
                ThrowsMessage<ConfigError>(
                    AllOf(HasSubstr(a.family), HasSubstr(what), HasSubstr("--format adapter"))));
    EXPECT_THROW(require_config(a, "/a/model.gguf"), ConfigError);
  };
  model::Architecture other = test::described({{"model_type", "llama"}});
  other.rotaries[0].rope.divisors.assign(64, 1.5f);
  refused(other, "RoPE's frequencies in layer 0");
  model::Architecture biased = test::described({{"model_type", "llama"}});
  biased.decoder.kinds[0].attention().in[0].bias = true;
  refused(biased, "model.layers.0.self_attn.q_proj");
  refused(test::described({{"model_type", "opt"}, {"dropout", 0.0}}), "opt");
}

}  // namespace
}  // namespace qlora::exporting
