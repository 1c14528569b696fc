// What adapter_config.json says of the kind of base that the adapter is for.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/json.h"
#include "lora/adapter_file.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"

namespace qlora::lora {
namespace {
using nlohmann::json;

const json& gpt_neo() {
  static const json config = json::parse(R"({"model_type": "gpt_neo", "vocab_size": 61,
      "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 24,
      "attention_types": [[["global", "local"], 1]], "window_size": 8})");
  return config;
}

const json& t5() {
  static const json config = json::parse(R"({"model_type": "t5", "vocab_size": 61, "d_model": 32,
      "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4,
      "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
      "tie_word_embeddings": false, "feed_forward_proj": "gated-gelu"})");
  return config;
}

// Of an adapter on a base of this config.json.
json written_config(const json& base, const std::string& target = "all-linear") {
  model::ModelOptions options;
  options.dtype = "float32";
  quant::QuantizationOptions none;
  none.method = "none";
  const auto source = model::made_weights(test::described(base));
  const auto model = model::load_model(*source, options, none, at::kCPU, at::kFloat);
  LoraOptions lora;
  lora.rank = 2;
  lora.targets = {target};
  const AdapterSet adapters(lora, model->parts(), model->compute_dtype(), 1);
  const test::TempDir dir;
  write_adapter(dir.path(), adapters, lora, {});
  return io::read_json_file(dir / "adapter_config.json");
}

TEST(AdapterConfig, FanInFanOutIsSaidOfConv1dsAlone) {
  EXPECT_EQ(written_config(test::small_gpt2().config).at("fan_in_fan_out"), true);
  EXPECT_EQ(written_config(test::small_gpt2().config, "c_proj").at("fan_in_fan_out"), true);
  // GPT-2's head is a Linear, and so is every layer of GPT-Neo.
  EXPECT_EQ(written_config(test::small_gpt2().config, "lm_head").at("fan_in_fan_out"), false);
  EXPECT_EQ(written_config(gpt_neo()).at("fan_in_fan_out"), false);
  EXPECT_EQ(written_config(t5()).at("fan_in_fan_out"), false);
}

TEST(AdapterConfig, TheTaskOfAModelWithAnEncoderIsSequenceToSequence) {
  EXPECT_EQ(written_config(t5()).at("task_type"), "SEQ_2_SEQ_LM");
  EXPECT_EQ(written_config(gpt_neo()).at("task_type"), "CAUSAL_LM");
  EXPECT_EQ(written_config(test::small_gpt2().config).at("task_type"), "CAUSAL_LM");
}

}  // namespace
}  // namespace qlora::lora
