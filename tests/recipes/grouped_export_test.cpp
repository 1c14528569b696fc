// Directories that `qlora quantize` writes as HQQ and GPTQ: what lies in them, that they are read
// back as what they stand for, and how the calibration runs.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/stop.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "recipes/exports/gptq_calibration.h"
#include "recipes/exports/quantize_model.h"
#include "tests/support/small_t5.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

const std::string kLayer = "model.layers.0.self_attn.q_proj";

// 40 rows of 24 tokens that depend on each other.
std::string token_rows() {
  std::string rows;
  for (int row = 0; row < 40; ++row) {
    json ids = json::array();
    int token = row * 5 % 256;
    for (int i = 0; i < 24; ++i) {
      ids.push_back(token);
      token = (token * 3 + i % 4) % 256;
    }
    rows += json{{"input_ids", ids}}.dump() + "\n";
  }
  return rows;
}

class GroupedDirectory : public ::testing::Test {
 protected:
  GroupedDirectory() {
    test::write_tiny_directory(dir_ / "model");
    dir_.write("rows.jsonl", token_rows());
  }

  QuantizeOptions options_of(const std::string& method) const {
    QuantizeOptions options;
    options.model = dir_ / "model";
    options.output = dir_ / "quantized";
    options.quantization.method = method;
    options.hqq.group_size = 16;
    options.gptq.group_size = 16;
    options.calibration.data.path = dir_ / "rows.jsonl";
    options.calibration.data.format = "pretokenized";
    options.calibration.sequence_length = 48;
    options.device = "cpu";
    return options;
  }

  QuantizationReport quantize(const QuantizeOptions& options) const {
    fs::remove_all(options.output);
    return quantize_model(options);
  }

  std::map<std::string, at::Tensor> tensors() const {
    std::map<std::string, at::Tensor> all;
    for (auto& [name, tensor] : quant::read_tensors(dir_ / "quantized" + "/model.safetensors"))
      all[name] = tensor;
    return all;
  }

  json config() const {
    return json::parse(test::read_file(dir_ / "quantized" + "/config.json"))["quantization_config"];
  }

  std::string message(const QuantizeOptions& options) const {
    try {
      quantize(options);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }

  const test::TempDir dir_;
};

TEST_F(GroupedDirectory, HqqLayersLieInTensorsOfTheirOwn) {
  const QuantizationReport report = quantize(options_of("hqq"));
  EXPECT_GT(report.bytes, 0);
  const auto all = tensors();
  EXPECT_EQ(all.at(kLayer + ".W_q").scalar_type(), at::kByte);
  EXPECT_EQ(all.at(kLayer + ".scale").scalar_type(), at::kBFloat16);
  EXPECT_EQ(all.at(kLayer + ".scale").size(0), 64);  // 32 x 32 weights in groups of 16
  EXPECT_EQ(all.at("model.norm.weight").scalar_type(), at::kBFloat16);
  EXPECT_FALSE(all.contains(kLayer + ".weight"));
  const json quantization = config();
  EXPECT_EQ(quantization["quant_method"], "hqq");
  const json& weights = quantization["quant_config"]["weight_quant_params"];
  EXPECT_EQ(weights["nbits"], 4);
  EXPECT_EQ(weights["group_size"], 16);
  EXPECT_EQ(weights["axis"], 1);
  EXPECT_EQ(weights["round_zero"], true);
  EXPECT_EQ(quantization["skip_modules"], json::array({"lm_head"}));
}

TEST_F(GroupedDirectory, HqqOfEveryWidthAndAxisIsReadBack) {
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int axis : {0, 1}) {
      QuantizeOptions options = options_of("hqq");
      options.hqq.bits = bits;
      options.hqq.axis = axis;
      options.dtype = "float32";
      EXPECT_NO_THROW(quantize(options)) << bits << " bits, axis " << axis;
    }
}

TEST_F(GroupedDirectory, ModulesThatAreSkippedStayAsTheyAre) {
  QuantizeOptions options = options_of("hqq");
  options.quantization.skip_modules = {"lm_head", "q_proj"};
  quantize(options);
  EXPECT_TRUE(tensors().contains(kLayer + ".weight"));
  EXPECT_EQ(config()["skip_modules"], json::array({"lm_head", "self_attn.q_proj"}));
  options.quantization.method = "gptq";
  quantize(options);
  EXPECT_TRUE(tensors().contains(kLayer + ".weight"));
  EXPECT_TRUE(tensors().contains("model.layers.0.self_attn.k_proj.qweight"));
  EXPECT_TRUE(config()["dynamic"].contains("-:^model\\.layers\\.0\\.self_attn\\.q_proj$"));
  // For transformers, which reads no "dynamic": a list of lists.
  const json in_blocks = config()["modules_in_block_to_quantize"];
  ASSERT_EQ(in_blocks.size(), 1u);
  EXPECT_EQ(in_blocks[0],
            json::array({"mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj",
                         "self_attn.o_proj", "self_attn.v_proj"}));
  options.quantization.skip_modules = {"lm_head", "model.layers.0.self_attn.q_proj"};
  quantize(options);
  EXPECT_FALSE(config().contains("modules_in_block_to_quantize"));
}

TEST_F(GroupedDirectory, ASkippedModuleThatTheModelDoesNotHaveIsRefused) {
  for (const char* method : {"hqq", "nf4"}) {
    QuantizeOptions options = options_of(method);
    options.quantization.skip_modules = {"q_proj", "bogus"};
    EXPECT_THAT(message(options),
                ::testing::AllOf(HasSubstr("--skip-modules: 'bogus' names no module"),
                                 HasSubstr("model.layers.0.self_attn.q_proj"),
                                 HasSubstr("down_proj, gate_proj")));
  }
  QuantizeOptions options = options_of("hqq");
  options.quantization.skip_modules = {"model.layers.1", "embed_tokens", "norm", "mlp"};
  EXPECT_EQ(message(options), "");
}

TEST_F(GroupedDirectory, GptqLayersLieAsItsReadersWantThem) {
  quantize(options_of("gptq"));
  const auto all = tensors();
  EXPECT_EQ(all.at(kLayer + ".qweight").sizes(), at::IntArrayRef({4, 32}));
  EXPECT_EQ(all.at(kLayer + ".qzeros").sizes(), at::IntArrayRef({2, 4}));
  EXPECT_EQ(all.at(kLayer + ".qzeros")[0][0].item<int64_t>(), 0x77777777);  // 8, less one
  EXPECT_EQ(all.at(kLayer + ".scales").scalar_type(), at::kHalf);           // in a bfloat16 model
  EXPECT_EQ(all.at(kLayer + ".g_idx")[31].item<int64_t>(), 1);
  const json quantization = config();
  EXPECT_EQ(quantization["quant_method"], "gptq");
  EXPECT_EQ(quantization["checkpoint_format"], "gptq");
  EXPECT_EQ(quantization["bits"], 4);
  EXPECT_EQ(quantization["group_size"], 16);
  EXPECT_EQ(quantization["sym"], true);
  EXPECT_EQ(quantization["desc_act"], false);
  EXPECT_EQ(quantization["meta"]["calibration"]["name"], "rows.jsonl");
  EXPECT_EQ(quantization["meta"]["calibration"]["tokens"], 960);
  EXPECT_EQ(quantization["meta"]["calibration"]["sequences"], 20);  // of two rows
  EXPECT_EQ(json::parse(test::read_file(dir_ / "quantized" + "/quantize_config.json")),
            quantization);
}

TEST_F(GroupedDirectory, GptqOfEveryKindIsReadBack) {
  for (const int bits : {2, 3, 4, 8})
    for (const bool symmetric : {true, false})
      for (const quant::GptqOrder order :
           {quant::GptqOrder::kPlain, quant::GptqOrder::kGroups, quant::GptqOrder::kActivations}) {
        QuantizeOptions options = options_of("gptq");
        options.gptq.bits = bits;
        options.gptq.symmetric = symmetric;
        options.gptq.order = order;
        EXPECT_NO_THROW(quantize(options)) << bits << " bits, symmetric " << symmetric;
        EXPECT_EQ(config()["checkpoint_format"], symmetric ? "gptq" : "gptq_v2");
      }
}

TEST_F(GroupedDirectory, TheReportNamesEachLayersError) {
  for (const char* method : {"gptq", "hqq"}) {
    QuantizeOptions options = options_of(method);
    options.report = true;
    const QuantizationReport report = quantize(options);
    ASSERT_EQ(report.layers.size(), 14u);
    for (const LayerError& layer : report.layers) {
      EXPECT_EQ(layer.format, std::string(method) + ", 4 bit");
      EXPECT_GT(layer.relative, 0.02) << layer.module;
      EXPECT_LT(layer.relative, 0.25) << layer.module;
    }
    ASSERT_TRUE(report.agreement.has_value());
    EXPECT_GT(report.agreement->kl_mean, 0.0);
  }
}

TEST_F(GroupedDirectory, ActivationsOnDiskGiveTheSameModel) {
  QuantizeOptions options = options_of("gptq");
  const std::string in_memory = quantize(options).base_hash;
  options.calibration.max_memory_bytes = 1;
  EXPECT_EQ(quantize(options).base_hash, in_memory);
  for (const auto& entry : fs::directory_iterator(dir_ / "quantized"))
    EXPECT_FALSE(entry.path().filename().string().starts_with("scratch")) << entry.path();
}

// The first group of the first block reads the same either way, all else does not.
TEST_F(GroupedDirectory, ABlockMayBeRoundedByTheInputsThatItHadAsItWas) {
  QuantizeOptions options = options_of("gptq");
  quantize(options);
  const auto one_by_one = tensors();
  EXPECT_EQ(config()["true_sequential"], true);
  options.gptq.true_sequential = false;
  quantize(options);
  const auto at_once = tensors();
  EXPECT_EQ(config()["true_sequential"], false);
  EXPECT_EQ(config()["meta"]["true_sequential"], false);
  const auto same = [&](const std::string& module) {
    return at::equal(one_by_one.at("model.layers." + module + ".qweight"),
                     at_once.at("model.layers." + module + ".qweight"));
  };
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    EXPECT_TRUE(same(std::string("0.self_attn.") + name)) << name;
  EXPECT_FALSE(same("0.self_attn.o_proj"));
  EXPECT_FALSE(same("0.mlp.down_proj"));
  EXPECT_FALSE(same("1.self_attn.q_proj"));
}

TEST_F(GroupedDirectory, NoMoreSequencesThanWantedAreUsed) {
  QuantizeOptions options = options_of("gptq");
  options.calibration.samples = 3;
  quantize(options);
  EXPECT_EQ(config()["meta"]["calibration"]["sequences"], 3);
  EXPECT_EQ(config()["meta"]["calibration"]["tokens"], 144);
}

TEST_F(GroupedDirectory, ExpertsAreCalibratedAndRoutersAreNot) {
  test::write_made_directory(dir_ / "experts", R"({
    "model_type": "mixtral", "vocab_size": 258, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false})");
  QuantizeOptions options = options_of("gptq");
  options.model = dir_ / "experts";
  quantize(options);
  int packed = 0;
  for (const auto& [name, tensor] : tensors())
    if (name.find(".experts.") != std::string::npos && name.ends_with(".qweight")) ++packed;
  EXPECT_EQ(packed, 2 * 4 * 2);
  EXPECT_EQ(config()["dynamic"].size(), 2u);
}

TEST_F(GroupedDirectory, AStopIsObeyedBetweenTwoSequences) {
  const auto source = model::open_weights(dir_ / "model");
  const auto model = model::load_without_blocks(*source, {}, at::kCPU, at::kFloat);
  const CalibrationRows rows = read_calibration_rows(
      options_of("gptq").calibration, *data::load_tokenizer(dir_ / "model"), model->architecture());
  ActivationStore activations(rows.lengths(), 32, int64_t{1} << 20, dir_.path());
  const QuantizeOptions options = options_of("gptq");
  quant::QuantizationOptions none;
  none.method = "none";
  GptqCalibration calibration(*model, rows, activations, options.gptq, none, {});
  std::atomic<bool> stop = false;
  const ObeyStop obey(stop);
  int blocks = 0;
  const auto change = [&](int64_t layer, model::Block& block, Progress& progress) {
    stop = ++blocks == 2;
    calibration.quantize_block(layer, block, progress);
  };
  EXPECT_THROW(model::stream_model(
                   *source, {}, none, at::kCPU, {}, [](const model::StreamedPart&) {}, change),
               Stopped);
  EXPECT_EQ(blocks, 2);
}

TEST_F(GroupedDirectory, WhatCannotBeIsRefusedBeforeAnythingIsWritten) {
  QuantizeOptions options = options_of("gptq");
  options.calibration.data.path.clear();
  EXPECT_THAT(message(options), HasSubstr("--data"));
  options = options_of("gptq");
  options.gptq.bits = 5;
  EXPECT_THAT(message(options), HasSubstr("--bits of gptq"));
  options = options_of("gptq");
  options.calibration.samples = 0;
  EXPECT_THAT(message(options), HasSubstr("--samples"));
  options = options_of("hqq");
  options.hqq.axis = 2;
  EXPECT_THAT(message(options), HasSubstr("--axis"));
  options = options_of("hqq");
  options.hqq.group_size = 24;  // 1,024 weights of q_proj
  EXPECT_THAT(message(options), HasSubstr(kLayer));
  EXPECT_FALSE(fs::exists(dir_ / "quantized"));
  for (const auto& entry : fs::directory_iterator(dir_.path()))
    EXPECT_EQ(entry.path().string().find("partial"), std::string::npos) << entry.path();
}

TEST_F(GroupedDirectory, ModelsWithAnEncoderAreNotCalibrated) {
  test::write_small_t5(dir_ / "t5", 48);
  QuantizeOptions options = options_of("gptq");
  options.model = dir_ / "t5";
  EXPECT_THAT(message(options), HasSubstr("encoder"));
}

}  // namespace
}  // namespace qlora::recipes
