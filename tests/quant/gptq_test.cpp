// GPTQ layers, packed here as AutoGPTQ and GPTQModel pack them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

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
constexpr std::array<int64_t, 3> kSizes[] = {
    {64, 32, 32}, {172, 50, 32}, {40, 9, -1}, {100, 33, 128}};

struct Made {
  int bits = 4;
  int64_t in = 64, out = 24, group_size = 32;
  bool version_1 = true;
  bool sym = false;
  at::Tensor group_of = {};  // int64 [in]; undefined: in order
  at::ScalarType scales = at::kHalf;
};

// Words of zeros less 1: the whole word where fields do not straddle words, else each field.
at::Tensor zeros_of_version_1(const at::Tensor& zeros, int bits) {
  if (bits == 3) return test::stream_words(zeros.add(7).bitwise_and(7), bits);
  const at::Tensor words = test::stream_words(zeros, bits);
  int64_t ones = 0;
  for (int bit = 0; bit < 32; bit += bits) ones |= int64_t{1} << bit;
  const at::Tensor less = words.to(at::kLong).bitwise_and(0xffffffff) - ones;
  return less.bitwise_and(0xffffffff).to(at::kInt);
}

StoredLayer made(const Made& made) {
  const int64_t size = made.group_size > 0 ? made.group_size : made.in;
  const int64_t groups = (made.in + size - 1) / size;
  const at::Tensor codes = test::random_codes({made.out, made.in}, made.bits);
  at::Tensor zeros = test::random_codes({made.out, groups}, made.bits);
  if (made.sym) zeros.fill_(int64_t{1} << (made.bits - 1));
  const at::Tensor scales = test::random_scales({made.out, groups}).to(made.scales);
  const at::Tensor group_of =
      made.group_of.defined() ? made.group_of : test::ordered_groups(made.in, size);
  StoredLayer layer;
  layer.config = {{"quant_method", "gptq"},
                  {"bits", made.bits},
                  {"group_size", made.group_size},
                  {"sym", made.sym},
                  {"desc_act", made.group_of.defined()},
                  {"checkpoint_format", made.version_1 ? "gptq" : "gptq_v2"}};
  layer.expected = test::decoded(codes, zeros, scales, group_of);
  layer.add("qweight", test::stream_words(codes, made.bits).t().contiguous());
  const at::Tensor by_group = zeros.t().contiguous();
  layer.add("qzeros", made.version_1 ? zeros_of_version_1(by_group, made.bits)
                                     : test::stream_words(by_group, made.bits));
  layer.add("scales", scales.t().contiguous());
  layer.add("g_idx", group_of.to(at::kInt));
  return layer;
}

TEST(Gptq, EveryWidthDecodesExactlyInBothVersions) {
  for (const int bits : {2, 3, 4, 8})
    for (const bool version_1 : {true, false})
      for (const auto& [in, out, size] : kSizes) {
        SCOPED_TRACE(fmt::format("{} bits, version 1 {}, [{}, {}], groups of {}", bits, version_1,
                                 out, in, size));
        expect_exact(made({bits, in, out, size, version_1}));
      }
}

TEST(Gptq, ShapesAreCeilings) {
  const StoredLayer layer = made({.in = 172, .out = 60});
  EXPECT_EQ(layer.part("qweight").sizes(), at::IntArrayRef({22, 60}));
  EXPECT_EQ(layer.part("qzeros").sizes(), at::IntArrayRef({6, 8}));
  expect_exact(layer);
}

TEST(Gptq, AZeroOfZeroBorrowsFromItsNeighbourInVersion1) {
  StoredLayer layer = made({.in = 32, .out = 8});
  // True zeros 0, 3, 0, 0, 0, 0, 0, 0: 0x00000030 - 0x11111111.
  layer.replace("qzeros", at::full({1, 1}, static_cast<int32_t>(0xeeeeef1fu), at::kInt));
  layer.replace("qweight", at::zeros({4, 8}, at::kInt));
  const at::Tensor scales = layer.part("scales").to(at::kFloat).flatten();
  layer.expected = at::zeros({8, 32});
  layer.expected[1].fill_(-3 * scales[1].item<float>());
  expect_exact(layer);
}

TEST(Gptq, SymmetricZerosOfVersion1TakeNoMemory) {
  for (const int bits : {2, 3, 4, 8}) expect_exact(made({.bits = bits, .sym = true}));
}

TEST(Gptq, ColumnsMayLieInGroupsOfAnyOrder) {
  const at::Tensor shuffled = test::ordered_groups(96, 32).index_select(0, at::randperm(96));
  expect_exact(made({.in = 96, .group_of = shuffled}));
  expect_exact(made({.bits = 3, .in = 96, .version_1 = false, .group_of = shuffled}));
}

TEST(Gptq, GroupsInTheirOrderNeedNoTable) {
  StoredLayer layer = made({.in = 70});
  const int64_t with = test::read_layer(layer).weight->bytes();
  layer.remove("g_idx");
  expect_exact(layer);
  EXPECT_EQ(with, test::read_layer(layer).weight->bytes());
}

TEST(Gptq, AQuantizeConfigOf2023IsRead) {
  StoredLayer layer = made({.sym = true});
  layer.remove("g_idx");
  layer.config = {{"bits", 4},
                  {"group_size", 32},
                  {"damp_percent", 0.01},
                  {"desc_act", false},
                  {"static_groups", false},
                  {"sym", true},
                  {"true_sequential", true},
                  {"model_name_or_path", nullptr},
                  {"model_file_base_name", "gptq_model-4bit-32g"}};
  expect_exact(layer);
}

TEST(Gptq, AModulesOwnSettingsWin) {
  StoredLayer layer = made({.bits = 8, .group_size = 16});
  layer.config["bits"] = 4;
  layer.config["group_size"] = 128;
  layer.config["dynamic"] = {{"-:.*v_proj", json::object()},
                             {"+:.*\\.q_proj", {{"bits", 8}, {"group_size", 16}}}};
  expect_exact(layer);
  layer.remove("g_idx");
  expect_exact(layer);
}

TEST(Gptq, AKeyWithoutCharactersOfPatternsIsAWholeName) {
  StoredLayer layer = made({.bits = 8, .group_size = 16});
  layer.module = "lm_head_2";
  for (auto& [name, tensor] : layer.tensors) name = "lm_head_2" + name.substr(name.rfind('.'));
  layer.config["bits"] = 4;
  layer.config["dynamic"] = {{"lm_head", {{"bits", 8}, {"group_size", 16}}}};
  layer.remove("g_idx");
  EXPECT_THAT(refusal_of(layer), HasSubstr("lm_head_2.qweight must be I32 [8, 24]"));
  layer.config["dynamic"] = {{"lm_head.*", {{"bits", 8}, {"group_size", 16}}}};
  expect_exact(layer);
}

TEST(Gptq, AQuantizedHeadHasSettingsOfItsOwn) {
  StoredLayer layer = made({.bits = 8, .sym = true});
  layer.module = "lm_head";
  for (auto& [name, tensor] : layer.tensors) name = "lm_head" + name.substr(name.rfind('.'));
  layer.config["bits"] = 4;
  layer.config["group_size"] = 128;
  layer.config["lm_head"] = true;
  expect_exact(layer);
}

TEST(Gptq, SettingsThatTheConfigLostAreThoseOfTheTensors) {
  StoredLayer layer = made({.bits = 8, .group_size = 16});
  layer.config["bits"] = 4;
  layer.config["group_size"] = 128;
  expect_exact(layer, false);
}

TEST(Gptq, ScalesKeepTheirType) {
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kFloat})
    expect_exact(made({.scales = dtype}), dtype != at::kFloat);
}

TEST(Gptq, ABiasIsNoPartOfThePackedLayer) {
  StoredLayer layer = made({});
  layer.add("bias", at::zeros({24}, at::kHalf));
  expect_exact(layer);
}

TEST(Gptq, WhatDoesNotFitIsNamed) {
  const auto changed = [](const auto& change, const Made& of = {}) {
    StoredLayer layer = made(of);
    change(layer);
    return refusal_of(layer);
  };
  EXPECT_THAT(changed([](auto& l) {
                l.replace("qweight", at::zeros({9, 24}, at::kInt));
              }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("layers.0.q_proj.qweight"),
                    HasSubstr("must be I32 [8, 24], found I32 [9, 24]")));
  EXPECT_THAT(changed([](auto& l) {
                l.replace("qzeros", at::zeros({2, 4}, at::kInt));
              }),
              HasSubstr("qzeros must be I32 [2, 3], found I32 [2, 4]"));
  EXPECT_THAT(changed([](auto& l) {
                l.replace("scales", at::ones({2, 24}, at::kInt));
              }),
              HasSubstr("scales must be F16 or BF16 or F32 [2, 24], found I32 [2, 24]"));
  EXPECT_THAT(changed([](auto& l) { l.replace("g_idx", at::zeros({63}, at::kInt)); }),
              HasSubstr("g_idx must be I32 [64], found I32 [63]"));
  for (const char* part : {"qzeros", "scales"})
    EXPECT_THAT(changed([&](auto& l) { l.remove(part); }),
                HasSubstr(fmt::format("must have a tensor layers.0.q_proj.{}", part)));
  EXPECT_THAT(changed([](auto& l) {
                l.add("weight", at::zeros({24, 64}));
              }),
              HasSubstr("layers.0.q_proj.weight belongs to no layer of GPTQ"));
  EXPECT_THAT(changed([](auto& l) { l.part("scales")[1][5] = INFINITY; }),
              HasSubstr("scales holds a scale that is NaN or infinite"));
}

TEST(Gptq, AGroupThatIsNotThereIsNamed) {
  for (const int32_t group : {-1, 2}) {
    StoredLayer layer = made({});
    layer.part("g_idx")[7] = group;
    EXPECT_THAT(refusal_of(layer),
                HasSubstr(fmt::format("g_idx must hold groups from 0 to 1, found {} at 7", group)));
  }
}

TEST(Gptq, ConfigsThatAreNotReadNameTheirKey) {
  const auto with = [](const char* key, const json& value) {
    json config = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 128}};
    config[key] = value;
    return refusal_of(config);
  };
  EXPECT_EQ(with("desc_act", true), "read");
  EXPECT_THAT(with("checkpoint_format", "marlin"),
              HasSubstr("config.json.checkpoint_format must be 'gptq' or 'gptq_v2', the orders of "
                        "codes that are read, found \"marlin\""));
  EXPECT_THAT(with("is_marlin_format", true), HasSubstr("is_marlin_format"));
  EXPECT_THAT(with("pack_dtype", "int16"), HasSubstr("pack_dtype must be 'int32'"));
  EXPECT_THAT(with("bits", 5), HasSubstr("config.json.bits must be one of 2, 3, 4, 8, found 5"));
  EXPECT_THAT(with("group_size", 0), HasSubstr("config.json.group_size must be -1 or"));
  EXPECT_THAT(with("dynamic", json{{"(", {{"bits", 8}}}}), HasSubstr("regular expression"));
  EXPECT_THAT(with("dynamic", json{{"x", {{"bits", 7}}}}), HasSubstr("config.json.dynamic.x.bits"));
  EXPECT_THAT(with("dynamic", 3), HasSubstr("config.json.dynamic must be an object"));
}

TEST(Gptq, GroupSizesThatOnlyTheConfigSaysMustBeLikely) {
  StoredLayer layer = made({.in = 128});
  layer.config["group_size"] = 33;
  layer.config_place = "likely.json";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("likely.json has 4 bits in groups of 33"));
  layer.remove("g_idx");
  EXPECT_THAT(refusal_of(layer),
              AllOf(HasSubstr("layers.0.q_proj.scales has 4 groups for 128 inputs"),
                    HasSubstr("the group size of 33 in likely.json neither divides them"),
                    HasSubstr("groups of 32 would be as many")));
  layer.config["group_size"] = 32;
  expect_exact(layer);
}

TEST(Gptq, AnOrderOfColumnsThatTheFileLostIsRefused) {
  StoredLayer layer = made({});
  layer.remove("g_idx");
  layer.config["desc_act"] = true;
  EXPECT_THAT(refusal_of(layer), AllOf(HasSubstr("layers.0.q_proj.qweight has no g_idx beside it"),
                                       HasSubstr("the file lost it")));
  StoredLayer row = made({.group_size = -1});  // one group has no order
  row.remove("g_idx");
  row.config["desc_act"] = true;
  EXPECT_EQ(refusal_of(row), "read");
}

TEST(Gptq, TensorsThatWinOverTheConfigAreWarnedOfOnce) {
  StoredLayer layer = made({.bits = 8, .group_size = 16});
  layer.config_place = "others.json";
  EXPECT_EQ(test::warning_of(layer), "");
  layer.config["bits"] = 4;
  EXPECT_THAT(test::warning_of(layer),
              HasSubstr("others.json has 4 bits in groups of 16 for layers.0.q_proj, whose tensors "
                        "have 8 bits in groups of 16; the tensors are used"));
  EXPECT_EQ(test::warning_of(layer), "");
  layer.config_place = "left_out.json";
  layer.config["dynamic"] = {{"-:.*q_proj", json::object()}};
  EXPECT_THAT(test::warning_of(layer), HasSubstr("left_out.json has no quantization for layers.0"));
  layer.config_place = "override.json";
  layer.config["bits"] = 8;
  layer.config["dynamic"] = {{".*q_proj", {{"bits", 4}}}};
  EXPECT_THAT(test::warning_of(layer), HasSubstr("override.json has 4 bits in groups of 16"));
}

TEST(Gptq, ZerosAndAnOrderThatTheConfigDoesNotHaveAreWarnedOf) {
  StoredLayer layer = made({});
  layer.config["sym"] = true;
  layer.config_place = "sym.json";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("sym.json has zeros that are all 8 (sym) for"));
  layer = made({.group_of = test::ordered_groups(64, 32).flip(0)});
  layer.config_place = "order.json";
  EXPECT_EQ(test::warning_of(layer), "");
  layer.config["desc_act"] = false;
  EXPECT_THAT(test::warning_of(layer),
              AllOf(HasSubstr("order.json has no desc_act for layers.0.q_proj"),
                    HasSubstr("g_idx with groups of columns in an order of their own")));
}

TEST(Gptq, TheTensorOfAnotherShapeIsTheOneThatIsBlamed) {
  StoredLayer layer = made({});
  layer.replace("scales", at::ones({4, 24}, at::kHalf));
  EXPECT_THAT(refusal_of(layer), HasSubstr("scales must be F16 or BF16 or F32 [2, 24], found"));
}

TEST(Gptq, KeysThatDisagreeAreWarnedOf) {
  StoredLayer layer = made({});
  layer.config["format"] = "gptq_v2";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("config.json.checkpoint_format is \"gptq\" and "
                                                 "config.json.format is \"gptq_v2\""));
}

TEST(Gptq, ARecipeThatAsksForAnotherQuantizationIsRefused) {
  for (const char* method : {"nf4", "int8", "none"}) {
    QuantizationOptions options;
    options.method = method;
    EXPECT_THAT(refusal_of(made({}), options),
                AllOf(HasSubstr("ConfigError: quantization.method"), HasSubstr("GPTQ"),
                      HasSubstr(method), HasSubstr("leave out the section quantization")));
  }
}

}  // namespace
}  // namespace qlora::quant
