// Layers of compressed-tensors, packed here as its compressors pack them.
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

// in, out, group_size; wide enough to tell the two ways of packing apart
constexpr std::array<int64_t, 3> kSizes[] = {{64, 24, 32}, {172, 50, 32}, {85, 9, -1}};

struct Made {
  int bits = 4;
  int64_t in = 64, out = 24, group_size = 32;  // -1: strategy channel
  bool symmetric = true;
  bool whole_codes = false;  // ⌊32 / bits⌋ codes in a word
  at::Tensor group_of = {};  // int64 [in]; undefined: in order
};

at::Tensor whole_code_words(const at::Tensor& codes, int bits) {
  const int64_t per_word = 32 / bits, words = (codes.size(1) + per_word - 1) / per_word;
  const at::Tensor padded = at::constant_pad_nd(codes, {0, per_word * words - codes.size(1)});
  at::Tensor result = at::zeros({codes.size(0), words}, at::kLong);
  for (int64_t k = 0; k < per_word; ++k)
    result += padded.view({-1, words, per_word}).select(2, k) * (int64_t{1} << (bits * k));
  return result.to(at::kInt);
}

json config_of(const Made& made, const char* format, const char* type) {
  const bool grouped = made.group_size > 0;
  json weights = {{"num_bits", made.bits},       {"type", type},
                  {"symmetric", made.symmetric}, {"strategy", grouped ? "group" : "channel"},
                  {"group_size", nullptr},       {"actorder", nullptr}};
  if (grouped) weights["group_size"] = made.group_size;
  if (made.group_of.defined()) weights["actorder"] = "group";
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", nullptr}}}}},
          {"ignore", {"lm_head"}},
          {"quantization_status", "compressed"},
          {"sparsity_config", json::object()},
          {"transform_config", json::object()}};
}

struct Numbers {
  at::Tensor codes, zeros, scales, expected;  // codes and zeros from 0
};

Numbers numbers_of(const Made& made) {
  const int64_t size = made.group_size > 0 ? made.group_size : made.in;
  const int64_t groups = (made.in + size - 1) / size;
  Numbers numbers;
  numbers.codes = test::random_codes({made.out, made.in}, made.bits);
  numbers.zeros = test::random_codes({made.out, groups}, made.bits);
  if (made.symmetric) numbers.zeros.fill_(int64_t{1} << (made.bits - 1));
  numbers.scales = test::random_scales({made.out, groups}).to(at::kBFloat16);
  numbers.expected =
      test::decoded(numbers.codes, numbers.zeros, numbers.scales,
                    made.group_of.defined() ? made.group_of : test::ordered_groups(made.in, size));
  return numbers;
}

StoredLayer packed(const Made& made) {
  const Numbers numbers = numbers_of(made);
  const auto words = [&](const at::Tensor& codes) {
    return made.whole_codes ? whole_code_words(codes, made.bits)
                            : test::stream_words(codes, made.bits);
  };
  StoredLayer layer;
  layer.config = config_of(made, "pack-quantized", "int");
  layer.expected = numbers.expected;
  layer.add("weight_packed", words(numbers.codes));
  layer.add("weight_scale", numbers.scales);
  layer.add("weight_shape", at::tensor({made.out, made.in}, at::kLong));
  if (!made.symmetric)
    layer.add("weight_zero_point", words(numbers.zeros.t().contiguous()).t().contiguous());
  if (made.group_of.defined()) layer.add("weight_g_idx", made.group_of.to(at::kInt));
  return layer;
}

StoredLayer in_int8(const Made& made) {
  const Numbers numbers = numbers_of(made);
  StoredLayer layer;
  layer.config = config_of(made, "int-quantized", "int");
  layer.expected = numbers.expected;
  const int64_t half = int64_t{1} << (made.bits - 1);
  layer.add("weight", (numbers.codes - half).to(at::kChar));
  layer.add("weight_scale", numbers.scales);
  if (!made.symmetric) layer.add("weight_zero_point", (numbers.zeros - half).to(at::kChar));
  return layer;
}

TEST(CompressedTensors, EveryWidthDecodesExactly) {
  for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8})
    for (const bool symmetric : {true, false})
      for (const bool whole_codes : {false, true})
        for (const auto& [in, out, size] : kSizes) {
          SCOPED_TRACE(fmt::format("{} bits, symmetric {}, whole codes {}, [{}, {}] by {}", bits,
                                   symmetric, whole_codes, out, in, size));
          expect_exact(packed({bits, in, out, size, symmetric, whole_codes}));
        }
}

TEST(CompressedTensors, ColumnsMayLieInGroupsOfAnyOrder) {
  const at::Tensor shuffled = test::ordered_groups(96, 32).index_select(0, at::randperm(96));
  expect_exact(packed({.in = 96, .group_of = shuffled}));
  expect_exact(packed({.bits = 3, .in = 96, .symmetric = false, .group_of = shuffled}));
}

TEST(CompressedTensors, GroupsWithoutAnOrderOfTheirOwnAreInOrder) {
  StoredLayer layer = packed({});
  layer.add("weight_g_idx", at::full({64}, -1, at::kInt));
  expect_exact(layer);
  layer.replace("weight_g_idx", test::ordered_groups(64, 32).to(at::kInt));
  expect_exact(layer);
}

TEST(CompressedTensors, ZerosOfOldReleasesAreSignedBytes) {
  StoredLayer layer = packed({});
  layer.add("weight_zero_point", at::zeros({24, 2}, at::kChar));
  expect_exact(layer);
  layer.replace("weight_zero_point", at::full({24, 2}, 8, at::kChar));
  EXPECT_THAT(refusal_of(layer), HasSubstr("weight_zero_point holds a zero beyond 4 bits"));
}

TEST(CompressedTensors, BytesDecodeExactly) {
  for (const bool symmetric : {true, false}) {
    expect_exact(in_int8({.bits = 8, .in = 70, .group_size = -1, .symmetric = symmetric}));
    expect_exact(in_int8({.bits = 8, .in = 70, .symmetric = symmetric}));
  }
}

TEST(CompressedTensors, OneScaleMayServeTheWholeMatrix) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, std::vector<int64_t>{1}}) {
    StoredLayer layer = in_int8({.bits = 8, .group_size = -1});
    layer.config["config_groups"]["group_0"]["weights"]["strategy"] = "tensor";
    layer.replace("weight_scale", at::full(shape, 0.25, at::kBFloat16));
    layer.expected = layer.part("weight").to(at::kFloat) * 0.25f;
    expect_exact(layer);
  }
}

TEST(CompressedTensors, ScalesOfActivationsChangeNothing) {
  StoredLayer layer = in_int8({.bits = 8, .group_size = -1});
  layer.add("input_scale", at::ones({1}, at::kBFloat16));
  layer.add("input_zero_point", at::zeros({1}, at::kChar));
  expect_exact(layer);
}

TEST(CompressedTensors, TheFirstGroupThatNamesAModuleHolds) {
  StoredLayer layer = packed({.bits = 8, .group_size = 16});
  json& groups = layer.config["config_groups"];
  groups["z"] = groups["group_0"];
  groups["z"]["targets"] = json::array({"re:.*q_proj$"});
  groups["group_0"]["weights"]["num_bits"] = 4;
  expect_exact(layer);
  groups["z"]["targets"] = json::array({"layers.0.q_proj"});
  expect_exact(layer);
  groups["z"]["targets"] = json::array({"re:q_proj"});  // is no start of the name
  EXPECT_THAT(refusal_of(layer), HasSubstr("weight_packed must be I32 [24, 8]"));
}

TEST(CompressedTensors, WhatDoesNotFitIsNamed) {
  const auto changed = [](const auto& change, const Made& of = {}) {
    StoredLayer layer = packed(of);
    change(layer);
    return refusal_of(layer);
  };
  EXPECT_THAT(changed([](auto& l) {
                l.replace("weight_packed", at::zeros({24, 9}, at::kInt));
              }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("layers.0.q_proj.weight_packed"),
                    HasSubstr("must be I32 [24, 8], found I32 [24, 9]")));
  EXPECT_THAT(changed([](auto& l) {
                l.replace("weight_scale", at::ones({24, 3}, at::kHalf));
              }),
              HasSubstr("weight_scale must be F16 or BF16 or F32 [24, 2], found F16 [24, 3]"));
  EXPECT_THAT(changed([](auto& l) { l.part("weight_scale")[3][1] = NAN; }),
              HasSubstr("NaN or infinite"));
  EXPECT_THAT(changed([](auto& l) { l.part("weight_shape")[1] = 63; }),
              HasSubstr("weight_shape must hold [24, 64], found [24, 63]"));
  EXPECT_THAT(changed([](auto& l) { l.remove("weight_shape"); }),
              HasSubstr("must have a tensor layers.0.q_proj.weight_shape"));
  EXPECT_THAT(changed([](auto& l) { l.remove("weight_zero_point"); }, {.symmetric = false}),
              HasSubstr("must have a tensor layers.0.q_proj.weight_zero_point"));
  EXPECT_THAT(changed([](auto& l) { l.add("weight_global_scale", at::ones({1})); }),
              HasSubstr("weight_global_scale belongs to no layer of compressed-tensors"));
  EXPECT_THAT(changed([](auto& l) { l.add("weight_g_idx", at::full({64}, 2, at::kInt)); }),
              HasSubstr("weight_g_idx must hold groups from 0 to 1, found 2 at 0"));
}

TEST(CompressedTensors, IntegersThatNoGroupDescribesAreRefused) {
  StoredLayer layer = packed({});
  json& groups = layer.config["config_groups"];
  groups["group_0"]["targets"] = json::array({"re:.*k_proj"});
  groups["group_1"] = groups["group_0"];
  EXPECT_THAT(refusal_of(layer), HasSubstr("no group of config.json's config_groups says how"));
}

TEST(CompressedTensors, ConfigsThatAreNotReadNameTheirKey) {
  const json good = config_of({}, "pack-quantized", "int");
  const auto with = [&](const json& patch) {
    json config = good;
    config.merge_patch(patch);
    return refusal_of(config);
  };
  EXPECT_EQ(with({{"sparsity_config", {{"format", "dense"}}}}), "read");
  EXPECT_THAT(with({{"format", "marlin-24"}}),
              AllOf(HasSubstr("config.json.format must be one of"), HasSubstr("marlin-24")));
  EXPECT_THAT(with({{"sparsity_config", {{"format", "sparse-24-bitmask"}}}}),
              HasSubstr("config.json.sparsity_config must be empty"));
  EXPECT_THAT(with({{"transform_config", {{"config_groups", {{"R1", {{"type", "hadamard"}}}}}}}}),
              HasSubstr("config.json.transform_config must be empty"));
  const auto weights = [&](const char* key, const json& value) {
    json config = good;
    config["config_groups"]["group_0"]["weights"][key] = value;
    return refusal_of(config);
  };
  EXPECT_THAT(weights("num_bits", 9), HasSubstr("group_0.weights.num_bits"));
  EXPECT_THAT(weights("type", "complex"), HasSubstr("group_0.weights.type must be one of"));
  EXPECT_THAT(weights("strategy", "block"), HasSubstr("group_0.weights.strategy must be"));
  json floats = config_of({}, "nvfp4-pack-quantized", "float");
  EXPECT_THAT(refusal_of(floats), HasSubstr("nvfp4-pack-quantized"));
  floats["format"] = "float-quantized";
  EXPECT_THAT(refusal_of(floats), HasSubstr("num_bits must be 8 for floats"));
  json none = good;
  none["config_groups"] = json::object();
  EXPECT_THAT(refusal_of(none), HasSubstr("config.json.config_groups must be groups"));
}

// Each text is said once a process: each config has a name of its own.
std::string said_of(const json& config, const std::string& name) {
  ::testing::internal::CaptureStderr();
  make_stored_format(io::JsonNode(config, name));
  return ::testing::internal::GetCapturedStderr();
}

TEST(CompressedTensors, ThatActivationsStayAsTheyAreIsSaid) {
  json config = config_of({}, "int-quantized", "int");
  EXPECT_EQ(said_of(config, "weights.json"), "");
  config["config_groups"]["group_0"]["input_activations"] = {{"num_bits", 8}, {"type", "int"}};
  const std::string said = said_of(config, "both.json");
  EXPECT_THAT(said, HasSubstr("both.json.config_groups.group_0.input_activations"));
  EXPECT_THAT(said, HasSubstr("quantize activations too"));
}

TEST(CompressedTensors, SoItIsOfFp8AndTorchao) {
  EXPECT_THAT(said_of({{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}}, "fp8.json"),
              HasSubstr("fp8.json.activation_scheme: other programs quantize activations"));
  EXPECT_THAT(
      said_of({{"quant_method", "torchao"},
               {"quant_type", {{"default", {{"_type", "Int8DynamicActivationInt8WeightConfig"}}}}}},
              "torchao.json"),
      HasSubstr("quantize activations too"));
}

TEST(CompressedTensors, GroupSizesThatOnlyTheConfigSaysMustBeLikely) {
  StoredLayer layer = packed({.in = 128});
  layer.config["config_groups"]["group_0"]["weights"]["group_size"] = 33;
  EXPECT_THAT(refusal_of(layer), HasSubstr("weight_scale has 4 groups for 128 inputs"));
}

TEST(CompressedTensors, AnOrderThatTheFileLostIsRefused) {
  StoredLayer layer = packed({});
  layer.config["config_groups"]["group_0"]["weights"]["actorder"] = "group";
  EXPECT_THAT(refusal_of(layer), HasSubstr("weight_scale has no weight_g_idx beside it"));
}

TEST(CompressedTensors, TensorsThatWinOverTheConfigAreWarnedOf) {
  StoredLayer layer = packed({.symmetric = false});
  layer.config["config_groups"]["group_0"]["weights"]["symmetric"] = true;
  layer.config_place = "symmetric.json";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("symmetric.json has symmetric weights for"));
  layer = packed({.group_of = test::ordered_groups(64, 32).flip(0)});
  layer.config["config_groups"]["group_0"]["weights"]["actorder"] = nullptr;
  layer.config_place = "actorder.json";
  EXPECT_THAT(test::warning_of(layer), HasSubstr("actorder.json has no actorder 'group' for"));
}

TEST(CompressedTensors, ARecipeThatAsksForAnotherQuantizationIsRefused) {
  QuantizationOptions options;
  options.method = "nf4";
  EXPECT_THAT(refusal_of(packed({}), options), AllOf(HasSubstr("ConfigError: quantization.method"),
                                                     HasSubstr("compressed-tensors")));
}

}  // namespace
}  // namespace qlora::quant
