// Layers of 8 bits as torchao and EETQ store them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

constexpr const char* kInt8Tensor = R"({"_type": "Int8Tensor", "_data": {"block_size": [1, 70]}})";

at::Tensor random_bytes(at::IntArrayRef shape) {
  return at::randint(-128, 128, shape, at::kLong).to(at::kChar);
}

StoredLayer torchao_layer() {
  StoredLayer layer;
  layer.config = {
      {"quant_method", "torchao"},
      {"quant_type", {{"default", {{"_type", "Int8WeightOnlyConfig"}, {"_version", 2}}}}}};
  const at::Tensor data = random_bytes({12, 70});
  const at::Tensor scales = test::random_scales({12, 1}).to(at::kFloat);
  layer.expected = data.to(at::kFloat) * scales;
  layer.metadata = {{layer.module + ".weight", kInt8Tensor}};
  layer.add("_weight_qdata", data);
  layer.add("_weight_scale", scales);
  layer.add("_weight_zero_point", at::zeros({12, 1}, at::kChar));
  return layer;
}

TEST(Torchao, WeightsOfEightBitsDecodeExactly) {
  StoredLayer layer = torchao_layer();
  expect_exact(layer);
  layer.remove("_weight_zero_point");
  layer.metadata.clear();
  expect_exact(layer);
}

TEST(Torchao, ZerosAreSubtracted) {
  StoredLayer layer = torchao_layer();
  const at::Tensor zeros = random_bytes({12, 1});
  layer.replace("_weight_zero_point", zeros);
  layer.expected = (layer.part("_weight_qdata").to(at::kInt) - zeros.to(at::kInt)).to(at::kFloat) *
                   layer.part("_weight_scale");
  expect_exact(layer, false);
}

TEST(Torchao, GroupsFollowFromTheScales) {
  StoredLayer layer = torchao_layer();
  const at::Tensor scales = test::random_scales({12, 5}).to(at::kFloat);
  layer.replace("_weight_scale", scales);
  layer.remove("_weight_zero_point");
  layer.expected =
      test::decoded(layer.part("_weight_qdata").to(at::kLong), at::zeros({12, 5}, at::kLong),
                    scales, test::ordered_groups(70, 14));
  expect_exact(layer, false);
  layer.replace("_weight_scale", at::ones({12, 3}));
  EXPECT_THAT(refusal_of(layer), HasSubstr("_weight_scale must have groups that divide 70 inputs"));
}

TEST(Torchao, WhatDoesNotFitIsNamed) {
  StoredLayer layer = torchao_layer();
  layer.metadata[layer.module + ".weight"] = R"({"_type": "Int4Tensor"})";
  EXPECT_THAT(refusal_of(layer),
              AllOf(HasSubstr("metadata of layers.0.q_proj.weight._type must be Int8Tensor"),
                    HasSubstr("Int4Tensor")));
  layer = torchao_layer();
  layer.replace("_weight_qdata", at::zeros({12, 70}, at::kByte));
  EXPECT_THAT(refusal_of(layer), HasSubstr("_weight_qdata must be I8 [12, 70], found U8 [12, 70]"));
  layer = torchao_layer();
  layer.remove("_weight_scale");
  EXPECT_THAT(refusal_of(layer), HasSubstr("must have a tensor layers.0.q_proj._weight_scale"));
  json config = torchao_layer().config;
  config["quant_type"]["default"]["_type"] = "Int4WeightOnlyConfig";
  EXPECT_THAT(refusal_of(config), HasSubstr("config.json.quant_type.default._type must be Int8"));
  config["quant_type"] = "int4_weight_only";
  EXPECT_THAT(refusal_of(config), HasSubstr("config.json.quant_type must be Int8"));
  config["quant_type"] = "int8_weight_only";
  EXPECT_EQ(refusal_of(config), "read");
}

// EETQ's four steps, one after the other: rows within 16 change places, columns become contiguous,
// words of two neighbouring columns alternate by 16, and bytes 1 and 2 of a word of q + 128 change
// places.
at::Tensor eetq_order(const at::Tensor& by_output) {
  const int64_t out = by_output.size(0), in = by_output.size(1);
  const at::Tensor places =
      at::tensor({0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15}, at::kLong);
  const at::Tensor permuted = by_output.view({out, in / 16, 16}).index_select(2, places);
  const at::Tensor tiles = permuted.reshape({out / 2, 2, in / 64, 16, 4}).permute({0, 2, 1, 3, 4});
  const at::Tensor bytes = tiles.to(at::kInt).add(128).to(at::kByte);
  return bytes.index_select(4, at::tensor({0, 2, 1, 3}, at::kLong))
      .contiguous()
      .view(at::kChar)
      .reshape({in, out});
}

StoredLayer eetq_layer(int64_t in, int64_t out) {
  StoredLayer layer;
  layer.config = {{"quant_method", "eetq"}, {"weights", "int8"}};
  const at::Tensor codes = random_bytes({out, in});
  const at::Tensor scales = test::random_scales({out});
  layer.expected = codes.to(at::kFloat) * scales.to(at::kFloat).unsqueeze(1);
  layer.add("weight", eetq_order(codes));
  layer.add("weight_scales", scales);
  return layer;
}

TEST(Eetq, TheOrderOfItsKernelsIsUndone) {
  expect_exact(eetq_layer(64, 64));
  expect_exact(eetq_layer(192, 70));
}

TEST(Eetq, ItsOwnModulesCallTheCodesQweight) {
  StoredLayer layer = eetq_layer(64, 64);
  layer.add("qweight", layer.part("weight"));
  layer.remove("weight");
  expect_exact(layer);
}

TEST(Eetq, WhatDoesNotFitIsNamed) {
  StoredLayer layer = eetq_layer(64, 64);
  layer.remove("weight_scales");
  layer.add("qweight", layer.part("weight"));
  layer.remove("weight");
  EXPECT_THAT(refusal_of(layer), HasSubstr("must have a tensor layers.0.q_proj.weight_scales"));
  layer = eetq_layer(64, 64);
  layer.replace("weight_scales", at::ones({64, 1}, at::kHalf));
  EXPECT_THAT(refusal_of(layer), HasSubstr("weight_scales must be F16 or BF16 or F32 [64]"));
  layer = eetq_layer(64, 64);
  layer.replace("weight", at::zeros({96, 64}, at::kChar));
  EXPECT_THAT(refusal_of(layer), HasSubstr("weight must be I8 [64, 64], found I8 [96, 64]"));
  layer.expected = at::zeros({64, 96});
  EXPECT_THAT(refusal_of(layer), HasSubstr("inputs in whole 64s"));
  EXPECT_THAT(refusal_of(json{{"quant_method", "eetq"}, {"weights", "int4"}}),
              HasSubstr("config.json.weights must be 'int8'"));
}

TEST(ByteFormats, ARecipeThatAsksForAnotherQuantizationIsRefused) {
  QuantizationOptions options;
  options.method = "nf4";
  for (const StoredLayer& layer : {torchao_layer(), eetq_layer(64, 64)})
    EXPECT_THAT(refusal_of(layer, options), HasSubstr("ConfigError: quantization.method"));
}

}  // namespace
}  // namespace qlora::quant
