// AWQ layers, packed here as AutoAWQ and GPTQModel pack them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "base/error.h"
#include "tests/support/stored_layer.h"

namespace qlora::quant {
namespace {

using nlohmann::json;
using test::expect_exact;
using test::refusal_of;
using test::StoredLayer;
using ::testing::AllOf;
using ::testing::HasSubstr;

// in, out, group_size
constexpr std::array<int64_t, 3> kSizes[] = {{64, 32, 32}, {40, 24, -1}, {172, 50, 32}, {9, 3, 4}};

struct Made {
  int bits = 4;
  int64_t in = 64, out = 24, group_size = 32;
};

// Codes [rows, out] to words [rows, ⌈out / 8⌉]: nibble n of word c is of column 8 c + order[n].
at::Tensor interleaved_words(const at::Tensor& codes) {
  constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  const int64_t words = (codes.size(1) + 7) / 8;
  const at::Tensor padded =
      at::constant_pad_nd(codes, {0, 8 * words - codes.size(1)}).view({-1, words, 8});
  at::Tensor stored = at::empty_like(padded);
  for (int n = 0; n < 8; ++n) stored.select(2, n).copy_(padded.select(2, kOrder[n]));
  return test::stream_words(stored.view({-1, 8 * words}), 4);
}

at::Tensor words_of(const at::Tensor& codes, int bits) {
  return bits == 4 ? interleaved_words(codes) : test::stream_words(codes, bits);
}

StoredLayer made(const Made& made) {
  const int64_t size = made.group_size > 0 ? made.group_size : made.in;
  const int64_t groups = (made.in + size - 1) / size;
  const at::Tensor codes = test::random_codes({made.out, made.in}, made.bits);
  const at::Tensor zeros = test::random_codes({made.out, groups}, made.bits);
  const at::Tensor scales = test::random_scales({made.out, groups});
  StoredLayer layer;
  layer.config = {{"quant_method", "awq"},
                  {"bits", made.bits},
                  {"group_size", made.group_size},
                  {"zero_point", true},
                  {"version", "gemm"}};
  layer.expected = test::decoded(codes, zeros, scales, test::ordered_groups(made.in, size));
  layer.add("qweight", words_of(codes.t().contiguous(), made.bits));
  layer.add("qzeros", words_of(zeros.t().contiguous(), made.bits));
  layer.add("scales", scales.t().contiguous());
  return layer;
}

// [out, in] as version gemv has it; `zero_words` words of zeros a row.
StoredLayer made_gemv(int64_t in, int64_t out, int64_t group_size, int64_t zero_words) {
  const int64_t groups = in / group_size;
  const at::Tensor codes = test::random_codes({out, in}, 4);
  const at::Tensor zeros = test::random_codes({out, groups}, 4);
  const at::Tensor scales = test::random_scales({out, groups});
  const std::array<int64_t, 2> padding = {0, 8 * zero_words - groups};
  StoredLayer layer;
  layer.config = {{"quant_method", "awq"},
                  {"bits", 4},
                  {"group_size", group_size},
                  {"zero_point", true},
                  {"version", "gemv"}};
  layer.expected = test::decoded(codes, zeros, scales, test::ordered_groups(in, group_size));
  layer.add("qweight", test::stream_words(codes, 4));
  layer.add("qzeros", test::stream_words(at::constant_pad_nd(zeros, padding), 4));
  layer.add("scales", at::constant_pad_nd(scales, padding).contiguous());
  return layer;
}

TEST(Awq, EveryWidthDecodesExactly) {
  for (const int bits : {2, 3, 4, 8})
    for (const auto& [in, out, size] : kSizes) {
      SCOPED_TRACE(fmt::format("{} bits, [{}, {}], groups of {}", bits, out, in, size));
      expect_exact(made({bits, in, out, size}));
    }
}

TEST(Awq, WidthsThatNoKernelHasAreKeptAsBytes) {
  for (const int bits : {5, 6, 7}) expect_exact(made({bits, 64, 40, 32}));
}

TEST(Awq, LayersOfManyBlocksDecodeExactly) {
  expect_exact(made({4, 296, 312, 64}));  // more words than a cache line, more inputs than a tile
  expect_exact(made({3, 48, 1100, 16}));  // more outputs than are unpacked at once
}

TEST(Awq, NibblesAreInterleaved) {
  StoredLayer layer = made({.in = 32, .out = 8});
  layer.replace("qzeros", at::zeros({1, 1}, at::kInt));
  layer.replace("scales", at::ones({1, 8}, at::kHalf));
  layer.replace("qweight", at::full({32, 1}, 0x76543210, at::kInt));
  const at::Tensor column = at::tensor({0, 4, 1, 5, 2, 6, 3, 7}, at::kFloat);
  layer.expected = column.unsqueeze(1).expand({8, 32}).contiguous();
  expect_exact(layer, false);
}

TEST(Awq, VersionGemvIsRead) {
  expect_exact(made_gemv(256, 6, 128, 1));
  expect_exact(made_gemv(128, 5, 64, 2));
  expect_exact(made_gemv(320, 5, 32, 4));
  expect_exact(made_gemv(1152, 3, 16, 16));
}

TEST(Awq, OlderNamesOfTheKeysAreRead) {
  StoredLayer layer = made({});
  layer.config = {{"zero_point", true}, {"q_group_size", 32}, {"w_bit", 4}, {"version", "GEMM"}};
  expect_exact(layer);
}

TEST(Awq, ThePackedLayersAreThoseOfTheFile) {
  StoredLayer layer = made({});
  layer.config["modules_to_not_convert"] = json::array({"q_proj"});
  expect_exact(layer);
}

TEST(Awq, SettingsThatTheConfigLostAreThoseOfTheTensors) {
  StoredLayer layer = made({8, 64, 32, 16});
  layer.config["bits"] = 4;
  layer.config["group_size"] = 64;
  expect_exact(layer, false);
}

TEST(Awq, BitsAreNotGuessed) {
  StoredLayer layer = made({8, 64, 24, 32});  // 24 outputs of 7 bits fill as many words
  layer.config["bits"] = 4;
  EXPECT_THAT(refusal_of(layer), HasSubstr("qweight must be I32 [64, 3], found I32 [64, 6]"));
}

TEST(Awq, WhatDoesNotFitIsNamed) {
  const auto changed = [](const auto& change) {
    StoredLayer layer = made({});
    change(layer);
    return refusal_of(layer);
  };
  EXPECT_THAT(changed([](auto& l) {
                l.replace("qweight", at::zeros({64, 7}, at::kInt));
              }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("layers.0.q_proj.qweight"),
                    HasSubstr("must be I32 [64, 3], found I32 [64, 7]")));
  EXPECT_THAT(changed([](auto& l) {
                l.replace("qweight", at::zeros({64, 3}, at::kChar));
              }),
              HasSubstr("must be I32 [64, 3], found I8 [64, 3]"));
  EXPECT_THAT(changed([](auto& l) {
                l.replace("qzeros", at::zeros({3, 3}, at::kInt));
              }),
              HasSubstr("qzeros must be I32 [2, 3], found I32 [3, 3]"));
  EXPECT_THAT(changed([](auto& l) {
                l.replace("scales", at::ones({3, 24}, at::kHalf));
              }),
              HasSubstr("must be"));
  for (const char* part : {"qzeros", "scales"})
    EXPECT_THAT(changed([&](auto& l) { l.remove(part); }),
                HasSubstr(fmt::format("must have a tensor layers.0.q_proj.{}", part)));
  EXPECT_THAT(changed([](auto& l) { l.add("g_idx", at::zeros({64}, at::kInt)); }),
              HasSubstr("g_idx belongs to no layer of AWQ"));
  EXPECT_THAT(
      changed([](auto& l) { l.tensors.emplace_back("layers.0.act.scales", at::ones({24})); }),
      HasSubstr("layers.0.act.scales scales the output of an activation"));
}

TEST(Awq, GroupSizesThatOnlyTheConfigSaysMustBeLikely) {
  StoredLayer layer = made({.in = 128});
  layer.config["group_size"] = 33;
  EXPECT_THAT(refusal_of(layer), AllOf(HasSubstr("scales has 4 groups for 128 inputs"),
                                       HasSubstr("the group size of 33 in config.json")));
}

TEST(Awq, TensorsThatWinOverTheConfigAreWarnedOf) {
  StoredLayer layer = made({8, 64, 32, 16});
  layer.config["bits"] = 4;
  layer.config_place = "awq_others.json";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("awq_others.json has 4 bits in groups of 16"));
  layer = made({});
  layer.config["zero_point"] = false;
  layer.config_place = "awq_zeros.json";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("awq_zeros.json has zeros that are all 8"));
}

TEST(Awq, TensorsOfTheOtherVersionNameIt) {
  StoredLayer layer = made({});
  layer.config["version"] = "gemv";
  EXPECT_THAT(refusal_of(layer), HasSubstr("qweight lies as version gemm has it, and config.json "
                                           "has version gemv"));
  layer = made_gemv(128, 8, 64, 2);
  layer.config["version"] = "gemm";
  EXPECT_THAT(refusal_of(layer), HasSubstr("qweight lies as version gemv has it, and config.json "
                                           "has version gemm"));
}

TEST(Awq, TheTensorOfAnotherShapeIsTheOneThatIsBlamed) {
  StoredLayer layer = made({});
  layer.replace("scales", at::ones({4, 24}, at::kHalf));
  EXPECT_THAT(refusal_of(layer), HasSubstr("scales must be F16 or BF16 or F32 [2, 24], found"));
}

TEST(Awq, GroupsOfGemvMustBeWhole) {
  StoredLayer layer = made_gemv(256, 6, 128, 1);
  layer.config["group_size"] = 96;
  EXPECT_THAT(refusal_of(layer), HasSubstr("whole groups of 96, found 256 inputs"));
}

TEST(Awq, ConfigsThatAreNotReadNameTheirKey) {
  const auto with = [](const char* key, const json& value) {
    json config = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 128}};
    config[key] = value;
    return refusal_of(config);
  };
  for (const char* version : {"gemv_fast", "marlin", "exllama"})
    EXPECT_THAT(
        with("version", version),
        AllOf(HasSubstr("config.json.version must be 'gemm' or 'gemv'"), HasSubstr(version)));
  EXPECT_THAT(with("checkpoint_format", "llm-awq"), HasSubstr("config.json.checkpoint_format"));
  EXPECT_THAT(with("backend", "llm-awq"), HasSubstr("config.json.backend"));
  EXPECT_THAT(with("bits", 9), HasSubstr("config.json.bits must be one of 2, 3, 4, 5, 6, 7, 8"));
  EXPECT_THAT(refusal_of(json{{"quant_method", "awq"}, {"bits", 3}, {"version", "gemv"}}),
              HasSubstr("config.json.bits must be 4"));
  EXPECT_THAT(refusal_of(json{{"quant_method", "awq"}}), HasSubstr("must have a member 'bits'"));
}

TEST(Awq, ARecipeThatAsksForAnotherQuantizationIsRefused) {
  QuantizationOptions options;
  options.method = "nf4";
  EXPECT_THAT(refusal_of(made({}), options),
              AllOf(HasSubstr("ConfigError: quantization.method"), HasSubstr("AWQ")));
}

// auto-round's files are those of GPTQ and AWQ under other keys.
TEST(AutoRound, ThePackingFormatNamesTheLayout) {
  StoredLayer layer = made({});
  layer.config = {{"quant_method", "auto-round"},
                  {"bits", 4},
                  {"group_size", 32},
                  {"sym", false},
                  {"data_type", "int"},
                  {"packing_format", "auto_round:auto_awq"}};
  expect_exact(layer);
  layer.config["packing_format"] = "auto_round:marlin";
  EXPECT_THAT(refusal_of(layer.config), HasSubstr("config.json.packing_format must be"));
  layer.config.erase("packing_format");
  EXPECT_THAT(refusal_of(layer.config), HasSubstr("must have a member 'packing_format'"));
}

TEST(AutoRound, LayersMayHaveSettingsOfTheirOwn) {
  StoredLayer layer = made({8, 64, 24, 16});
  layer.config = {{"quant_method", "auto-round"},
                  {"bits", 4},
                  {"group_size", 32},
                  {"sym", false},
                  {"packing_format", "auto_round:auto_awq"},
                  {"extra_config",
                   {{"layers.0.q_proj", {{"bits", 8}, {"group_size", 16}}},
                    {"layers.0.q", {{"bits", 2}}},
                    {"lm_head", {{"bits", 16}, {"data_type", "float"}}}}}};
  expect_exact(layer);
}

TEST(AutoRound, ZerosOfGptqAreThoseOfVersion1) {
  StoredLayer layer;
  const at::Tensor codes = test::random_codes({16, 32}, 4);
  const at::Tensor scales = test::random_scales({16, 1});
  layer.config = {{"quant_method", "auto-round"},
                  {"bits", 4},
                  {"group_size", 32},
                  {"sym", true},
                  {"packing_format", "auto_round:auto_gptq"}};
  layer.expected =
      test::decoded(codes, at::full({16, 1}, 8, at::kLong), scales, test::ordered_groups(32, 32));
  layer.add("qweight", test::stream_words(codes, 4).t().contiguous());
  layer.add("qzeros", at::full({1, 2}, 0x77777777, at::kInt));
  layer.add("scales", scales.t().contiguous());
  expect_exact(layer);
}

}  // namespace
}  // namespace qlora::quant
