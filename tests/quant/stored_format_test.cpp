// Which reader a quantization_config gets, and what bitsandbytes' says.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "quant/make_frozen_weight.h"
#include "quant/prequantized/read_only_formats.h"
#include "tests/support/stored_layer.h"

namespace qlora::quant {
namespace {

using nlohmann::json;
using test::expect_exact;
using test::refusal_of;
using test::StoredLayer;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<StoredFormat> format_of(const json& config) {
  return make_stored_format(io::JsonNode(config, "config.json"));
}

// A matrix as bitsandbytes stores it, with the config that says so.
StoredLayer bitsandbytes_layer(const std::string& method, bool double_quant) {
  QuantizationOptions options;
  options.method = method;
  options.double_quant = double_quant;
  StoredLayer layer;
  const bool eight = method == "int8";
  layer.config = {{"quant_method", "bitsandbytes"},
                  {"load_in_4bit", !eight},
                  {"load_in_8bit", eight},
                  {"bnb_4bit_quant_type", eight ? "fp4" : method},
                  {"bnb_4bit_use_double_quant", double_quant},
                  {"bnb_4bit_compute_dtype", "bfloat16"}};
  const auto weight =
      make_frozen_weight(at::randn({48, 64}).to(at::kBFloat16), options, layer.module);
  layer.expected = at::empty({48, 64}, at::kFloat);
  weight->dequantize_rows(0, 0, 48, layer.expected);
  for (const auto& [name, tensor] : weight->state()) layer.add(name, tensor);
  return layer;
}

TEST(StoredFormat, BitsandbytesIsOneOfTheFormats) {
  for (const char* method : {"nf4", "fp4"})
    for (const bool double_quant : {true, false})
      expect_exact(bitsandbytes_layer(method, double_quant));
  expect_exact(bitsandbytes_layer("int8", false));
  EXPECT_EQ(format_of(bitsandbytes_layer("nf4", true).config)->name(), "bitsandbytes nf4");
}

TEST(StoredFormat, BitsandbytesTakesARecipeOfTheSameMethod) {
  QuantizationOptions options;
  options.method = "nf4";
  EXPECT_EQ(refusal_of(bitsandbytes_layer("nf4", true), options), "read");
  EXPECT_THAT(refusal_of(bitsandbytes_layer("nf4", false), options),
              HasSubstr("ConfigError: quantization.double_quant"));
  EXPECT_THAT(refusal_of(bitsandbytes_layer("fp4", true), options),
              AllOf(HasSubstr("ConfigError: quantization.method"), HasSubstr("fp4"),
                    HasSubstr("the recipe asks for nf4")));
  options.method = "int8_weight_only";
  EXPECT_EQ(refusal_of(bitsandbytes_layer("int8", false), options), "read");
}

TEST(StoredFormat, ContradictoryKeysOfBitsandbytesAreRefused) {
  EXPECT_THAT(refusal_of(json{{"load_in_4bit", true}, {"load_in_8bit", true}}),
              HasSubstr("exactly one of load_in_4bit and load_in_8bit"));
  EXPECT_THAT(refusal_of(json{{"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf3"}}),
              HasSubstr("config.json.bnb_4bit_quant_type must be nf4 or fp4"));
}

TEST(StoredFormat, QuantMethodChoosesTheReader) {
  const json plain = {{"bits", 4}, {"group_size", 128}};
  const auto name = [&](const char* method, const json& patch = json::object()) {
    json config = plain;
    config["quant_method"] = method;
    config.update(patch);
    return format_of(config)->name();
  };
  EXPECT_EQ(name("gptq"), "GPTQ");
  EXPECT_EQ(name("awq"), "AWQ");
  EXPECT_EQ(name("auto-round", {{"packing_format", "auto_round:auto_gptq"}}), "GPTQ");
  EXPECT_EQ(name("auto-round", {{"packing_format", "auto_round:auto_awq"}}), "AWQ");
  EXPECT_EQ(name("eetq"), "EETQ");
  EXPECT_EQ(name("torchao", {{"quant_type", "int8_weight_only"}}), "torchao");
  EXPECT_EQ(format_of({{"quant_method", "mxfp4"}}), nullptr);
}

TEST(ReadOnlyFormats, EachIsReadByItsMethodAndFoundByItsName) {
  const std::string readers = refusal_of(json{{"quant_method", "none such"}});
  for (const ReadOnlyFormat& format : read_only_formats()) {
    EXPECT_THAT(readers, HasSubstr(" " + format.method)) << format.name;
    EXPECT_EQ(find_read_only_format(format.method), &format);
    EXPECT_EQ(find_read_only_format(format.name)->name, format.name);
  }
  EXPECT_NE(find_read_only_format(format_of({{"quant_method", "eetq"}})->name()), nullptr);
  EXPECT_NE(find_read_only_format(format_of({{"quant_method", "fbgemm_fp8"}})->name()), nullptr);
  for (const char* written : {"gptq", "GPTQ", "hqq", "HQQ", "nf4", "bitsandbytes", ""})
    EXPECT_EQ(find_read_only_format(written), nullptr) << written;
  EXPECT_EQ(find_read_only_format("awq")->sentence().find("AWQ is read, not written: "), 0u);
}

TEST(StoredFormat, ConfigsOfOldToolsAreToldByTheirKeys) {
  EXPECT_EQ(format_of({{"bits", 4}, {"group_size", 128}, {"desc_act", false}})->name(), "GPTQ");
  EXPECT_EQ(format_of({{"w_bit", 4}, {"q_group_size", 128}, {"zero_point", true}})->name(), "AWQ");
  EXPECT_EQ(format_of({{"bits", 4}, {"zero_point", true}, {"version", "GEMM"}})->name(), "AWQ");
  EXPECT_EQ(format_of({{"load_in_8bit", true}})->name(), "bitsandbytes int8");
  EXPECT_THAT(refusal_of(json{{"kv_cache", 8}}),
              HasSubstr("config.json must have a member 'quant_method'"));
}

TEST(StoredFormat, AMethodThatIsNullIsWarnedOf) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(format_of({{"quant_method", nullptr}, {"bits", 4}})->name(), "GPTQ");
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("config.json.quant_method is null; its other keys are those of gptq"));
}

// What is said of a config that is read.
std::string said_of(json config, const std::string& method) {
  static int count = 0;  // a warning is said once a file
  config["quant_method"] = method;
  ::testing::internal::CaptureStderr();
  make_stored_format(io::JsonNode(config, fmt::format("keys-{}.json", ++count)));
  return ::testing::internal::GetCapturedStderr();
}

// A config of each method that says nothing special, as its tool writes it.
const std::map<std::string, json>& plain_configs() {
  static const std::map<std::string, json> configs = {
      {"gptq", json::parse(R"({"bits": 4, "group_size": 128, "sym": true, "desc_act": false,
          "damp_percent": 0.1, "true_sequential": true, "model_file_base_name": "m",
          "is_marlin_format": false, "pack_dtype": "int32", "lm_head": false, "format": "gptq",
          "meta": {"foo": 1}, "act_group_aware": true, "backend": "auto", "use_exllama": true,
          "exllama_config": {"version": 1}, "data_type": "int", "autoround_version": "0.4",
          "act_bits": 16, "adapter": null, "rotation": null})")},
      {"awq", json::parse(R"({"bits": 4, "group_size": 128, "zero_point": true,
          "version": "gemm", "do_fuse": false, "modules_to_not_convert": ["a"],
          "exllama_config": {"version": 2}})")},
      {"auto-round", json::parse(R"({"bits": 4, "packing_format": "auto_round:auto_gptq",
          "group_size": 128, "sym": true, "data_type": "int", "iters": 200, "nsamples": 128,
          "scale_dtype": "torch.float16", "act_bits": 16, "act_group_size": 128,
          "act_data_type": null, "super_bits": null, "super_group_size": 8,
          "supported_types": ["Linear"], "block_name_to_quantize": "model.layers"})")},
      {"compressed-tensors", json::parse(R"({"format": "pack-quantized", "ignore": ["lm_head"],
          "kv_cache_scheme": {"num_bits": 8}, "quantization_status": "compressed",
          "global_compression_ratio": 1.5, "version": "0.9", "sparsity_config": {},
          "transform_config": {}, "config_groups": {"group_0": {"targets": ["Linear"],
          "format": null, "input_activations": null, "output_activations": null,
          "weights": {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group",
                      "group_size": 32, "dynamic": false, "observer": "minmax",
                      "observer_kwargs": {"a": 1}, "actorder": null, "block_structure": null,
                      "scale_dtype": "torch.bfloat16", "zp_dtype": "torch.int8"}}}})")},
      {"fp8", json::parse(R"({"fmt": "e4m3", "weight_block_size": [128, 128],
          "scale_fmt": "ue8m0", "modules_to_not_convert": ["lm_head"],
          "dequantize": false})")},
      {"fbgemm_fp8", json::parse(R"({"activation_scale_ub": 1200.0})")},
      {"hqq", json::parse(R"({"skip_modules": ["lm_head"], "quant_config": {
          "offload_meta": false, "scale_quant_params": null, "zero_quant_params": null,
          "weight_quant_params": {"nbits": 4, "channel_wise": true, "group_size": 64,
          "optimize": true, "round_zero": true, "axis": 1, "view_as_float": false}}})")},
      {"aqlm", json::parse(R"({"in_group_size": 8, "out_group_size": 1, "num_codebooks": 1,
          "nbits_per_codebook": 16, "linear_weights_not_to_quantize": ["lm_head.weight"]})")},
      {"torchao", json::parse(R"({"modules_to_not_convert": null, "untie_embedding_weights": false,
          "include_input_output_embeddings": false, "quant_type": {"default": {"_version": 2,
          "_type": "Int8WeightOnlyConfig", "_data": {"granularity": {"_data": {"dim": -1},
          "_type": "PerRow"}, "group_size": null, "set_inductor_config": true}}}})")},
      {"eetq", json::parse(R"({"weights": "int8", "modules_to_not_convert": ["lm_head"]})")},
      {"mxfp4", json::parse(R"({"modules_to_not_convert": ["lm_head"], "dequantize": false})")},
      {"bitsandbytes", json::parse(R"({"_load_in_4bit": true, "_load_in_8bit": false,
          "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
          "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true,
          "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
          "llm_int8_skip_modules": null, "llm_int8_threshold": 6.0, "load_in_4bit": true,
          "load_in_8bit": false})")}};
  return configs;
}

TEST(StoredFormat, WhatToolsWriteIsNotSpokenOfAndAnyOtherKeyIsNamed) {
  for (const auto& [method, plain] : plain_configs()) {
    EXPECT_EQ(said_of(plain, method), "") << method;
    json other = plain;
    other["made_up"] = 1;
    EXPECT_THAT(said_of(other, method), HasSubstr("neither reads nor knows: made_up")) << method;
  }
}

TEST(StoredFormat, OtherKeysFurtherDownAreNamed) {
  const auto with = [](const std::string& method, const char* at) {
    json config = plain_configs().at(method);
    config[json::json_pointer(at)] = 1;
    return said_of(config, method);
  };
  for (const auto& [method, at] :
       {std::pair("hqq", "/quant_config/weight_quant_params/made_up"),
        std::pair("hqq", "/quant_config/made_up"),
        std::pair("torchao", "/quant_type/default/_data/made_up"),
        std::pair("compressed-tensors", "/config_groups/group_0/made_up"),
        std::pair("compressed-tensors", "/config_groups/group_0/weights/made_up")})
    EXPECT_THAT(with(method, at), HasSubstr("made_up")) << at;
  EXPECT_EQ(with("gptq", "/meta/made_up"), "");
}

TEST(StoredFormat, WhatChangesTheComputationIsToldOrRefused) {
  const auto with = [](const std::string& method, const char* key, const json& value) {
    json config = plain_configs().at(method);
    config[key] = value;
    config["quant_method"] = method;
    return config;
  };
  for (const char* method : {"gptq", "awq", "auto-round"}) {
    EXPECT_THAT(said_of(with(method, "act_bits", 8), method),
                HasSubstr("act_bits: other programs quantize activations too"));
    EXPECT_THAT(said_of(with(method, "rotation", "hadamard"), method),
                HasSubstr("no input of a layer is rotated here"));
    EXPECT_THAT(said_of(with(method, "adapter", {{"name", "lora"}}), method),
                HasSubstr("adapter says that an adapter corrects"));
    EXPECT_THAT(refusal_of(with(method, "data_type", "mx_fp")), HasSubstr("data_type must be"));
    EXPECT_THAT(refusal_of(with(method, "rotation_config", {{"hadamard", true}})),
                HasSubstr("rotation_config must be absent"));
    EXPECT_EQ(said_of(with(method, "act_bits", 0), method), "");
    EXPECT_EQ(said_of(with(method, "made_up", false), method), "");
    EXPECT_THAT(said_of(with(method, "made_up", 0), method), HasSubstr("made_up"));
  }
  json config = plain_configs().at("compressed-tensors");
  config["config_groups"]["group_0"]["weights"]["dynamic"] = true;
  EXPECT_THAT(said_of(config, "compressed-tensors"), HasSubstr("weights.dynamic is true"));
}

TEST(StoredFormat, OtherMethodsAreRefusedWithTheOnesThatAreRead) {
  for (const char* method :
       {"quanto", "spqr", "vptq", "higgs", "fp_quant", "bitnet", "sinq", "quark", "modelopt"})
    EXPECT_THAT(refusal_of(json{{"quant_method", method}, {"bits", 4}}),
                AllOf(HasSubstr(fmt::format("quantized by '{}'", method)),
                      HasSubstr("bitsandbytes, gptq, awq, auto-round")));
}

}  // namespace
}  // namespace qlora::quant
