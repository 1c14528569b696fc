// Which reader a quantization_config gets, and what bitsandbytes' says.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST(StoredFormat, OtherMethodsAreRefusedWithTheOnesThatAreRead) {
  for (const char* method :
       {"quanto", "spqr", "vptq", "higgs", "fp_quant", "bitnet", "sinq", "quark", "modelopt"})
    EXPECT_THAT(refusal_of(json{{"quant_method", method}, {"bits", 4}}),
                AllOf(HasSubstr(fmt::format("quantized by '{}'", method)),
                      HasSubstr("bitsandbytes, gptq, awq, auto-round")));
}

}  // namespace
}  // namespace qlora::quant
