// FP8 weights: codes times the scales of blocks, and the layers of files that hold them.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "quant/formats/fp8_weight.h"
#include "tests/support/decoded_rows.h"
#include "tests/support/quant_golden.h"
#include "tests/support/stored_layer.h"

namespace qlora::quant {
namespace {

using test::decoded_rows;
using test::layer_of;
using test::LayerRead;
using test::refusal_of;
using test::same_bytes;
using test::StoredLayer;
using ::testing::AllOf;
using ::testing::HasSubstr;

// OCP 8-bit Floating Point, E4M3: 4 bits of exponent with bias 7, no infinities.
float e4m3(int code) {
  const int exponent = (code >> 3) & 15, fraction = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return static_cast<float>((code & 128) != 0 ? -magnitude : magnitude);
}

bool is_nan(int code) { return (code & 127) == 127; }

at::Tensor random_codes(int64_t out, int64_t in) {
  const at::Tensor codes = at::randint(0, 256, {out, in}, at::kByte);
  return at::where(codes.bitwise_and(127).eq(127), at::zeros_like(codes), codes).contiguous();
}

int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }

// Powers of two are stored as bytes.
at::Tensor random_scales(int64_t rows, int64_t columns, at::ScalarType dtype) {
  if (dtype == at::kByte) return at::randint(110, 131, {rows, columns}, at::kByte);
  return at::exp(at::randn({rows, columns}) - 6).to(dtype);
}

at::Tensor scales_as_floats(const at::Tensor& scales) {
  if (scales.scalar_type() != at::kByte) return scales.to(at::kFloat);
  return at::exp2(scales.to(at::kDouble) - 127).to(at::kFloat);
}

at::Tensor by_definition(const Fp8Tensor& w) {
  at::Tensor rows = at::empty({w.codes.size(0), w.codes.size(1)}, at::kFloat);
  const at::Tensor scales = scales_as_floats(w.scales);
  for (int64_t r = 0; r < rows.size(0); ++r)
    for (int64_t i = 0; i < rows.size(1); ++i) {
      const auto* of_row = scales.const_data_ptr<float>() + r / w.block_rows * scales.size(1);
      const int code = w.codes.const_data_ptr<uint8_t>()[r * rows.size(1) + i];
      rows.mutable_data_ptr<float>()[r * rows.size(1) + i] =
          e4m3(code) * of_row[i / w.block_columns];
    }
  return rows;
}

struct Blocks {
  int64_t out, in, rows, columns;
};
// One scale a tensor, a channel, ragged blocks, blocks narrower than a vector, MXFP8.
constexpr Blocks kBlocks[] = {{5, 300, 5, 300}, {7, 45, 1, 45}, {130, 150, 128, 128},
                              {33, 70, 32, 32}, {9, 31, 4, 5},  {6, 96, 1, 32}};
constexpr at::ScalarType kScaleTypes[] = {at::kFloat, at::kBFloat16, at::kHalf, at::kByte};

Fp8Tensor random_weight(const Blocks& b, at::ScalarType scales) {
  return {random_codes(b.out, b.in),
          random_scales(blocks_of(b.out, b.rows), blocks_of(b.in, b.columns), scales), b.rows,
          b.columns};
}

TEST(Fp8Weight, EveryCodeIsTheNumberOfItsDefinition) {
  at::Tensor codes = at::arange(256).to(at::kByte).view({1, 256});
  at::Tensor expected = at::zeros({1, 256});
  for (int code = 0; code < 256; ++code)
    if (is_nan(code))
      codes[0][code] = 0;
    else
      expected[0][code] = e4m3(code);
  EXPECT_EQ(expected[0][0x7e].item<float>(), 448.0f);
  const Fp8Weight weight({codes, at::ones({1, 1}), 1, 256});
  for (const InstructionSet set : test::kInstructionSets) {
    const AtMost most(set);
    EXPECT_TRUE(same_bytes(decoded_rows(weight), expected)) << to_string(set);
  }
}

TEST(Fp8Weight, RowsAreCodesTimesTheScaleOfTheirBlockOnEveryInstructionSet) {
  for (const Blocks& blocks : kBlocks)
    for (const at::ScalarType scales : kScaleTypes) {
      const Fp8Tensor tensor = random_weight(blocks, scales);
      const Fp8Weight weight(tensor);
      const at::Tensor expected = by_definition(tensor);
      for (const InstructionSet set : test::kInstructionSets) {
        const AtMost most(set);
        for (const at::ScalarType dtype : test::kFloatingTypes) {
          SCOPED_TRACE(
              fmt::format("{} {} {}", weight.format(), to_string(set), c10::toString(dtype)));
          EXPECT_TRUE(same_bytes(decoded_rows(weight, dtype), expected.to(dtype)));
          EXPECT_TRUE(
              same_bytes(decoded_rows(weight, 2, 5, dtype), expected.narrow(0, 2, 3).to(dtype)));
        }
      }
    }
}

TEST(Fp8Weight, SmallestAndLargestPowersOfTwoScaleExactly) {
  const Fp8Tensor tensor{at::full({2, 3}, 0x38, at::kByte),
                         at::tensor({0, 254}, at::kByte).view({2, 1}), 1, 3};
  const Fp8Weight weight(tensor);
  for (const InstructionSet set : test::kInstructionSets) {
    const AtMost most(set);
    const at::Tensor rows = decoded_rows(weight);
    EXPECT_EQ(rows[0][0].item<float>(), 0x1p-127f);
    EXPECT_EQ(rows[1][2].item<float>(), 0x1p127f);
  }
}

TEST(Fp8Weight, ProductsAreThoseOfTheDecodedRows) {
  for (const Blocks& blocks : kBlocks)
    EXPECT_TRUE(test::multiplies_decoded_rows(Fp8Weight(random_weight(blocks, at::kFloat))));
}

TEST(Fp8Weight, SaysWhatItIsAndHowMuchItKeeps) {
  const auto format = [](const Blocks& b) {
    return Fp8Weight(random_weight(b, at::kFloat)).format();
  };
  EXPECT_EQ(format({5, 300, 5, 300}), "fp8 (tensor)");
  EXPECT_EQ(format({7, 45, 1, 45}), "fp8 (channel)");
  EXPECT_EQ(format({130, 150, 128, 128}), "fp8 (128x128)");
  EXPECT_EQ(format({6, 96, 1, 32}), "fp8 (1x32)");
  const Fp8Tensor tensor = random_weight({130, 150, 128, 128}, at::kBFloat16);
  const Fp8Weight weight(tensor);
  EXPECT_EQ(weight.bytes(), 130 * 150 + 2 * 4);
  const NamedTensors state = weight.state();
  ASSERT_EQ(state.size(), 2u);
  EXPECT_TRUE(same_bytes(state[0].second, tensor.codes));
  EXPECT_TRUE(same_bytes(state[1].second, tensor.scales));
}

TEST(Fp8Weight, PartsThatDoNotFitTogetherAreRefused) {
  const at::Tensor codes = random_codes(6, 8);
  EXPECT_THROW(Fp8Weight({codes, at::ones({1, 1}), 4, 8}), Error);
  EXPECT_THROW(Fp8Weight({codes, at::ones({2, 1}), 4, 4}), Error);
  EXPECT_THROW(Fp8Weight({codes, at::ones({2, 2}, at::kDouble), 4, 4}), Error);
  EXPECT_THROW(Fp8Weight({codes.to(at::kInt), at::ones({2, 2}), 4, 4}), Error);
  EXPECT_THROW(Fp8Weight({codes, at::ones({6, 1}), 0, 8}), Error);
  const Fp8Weight weight({codes, at::ones({2, 2}), 4, 4});
  at::Tensor rows = at::empty({6, 8}), narrow = at::empty({6, 7});
  EXPECT_THROW(weight.dequantize_rows(1, 0, 6, rows), Error);
  EXPECT_THROW(weight.dequantize_rows(0, 1, 7, rows), Error);
  EXPECT_THROW(weight.dequantize_rows(0, 0, 6, narrow), Error);
}

// The weight as a file holds it.
at::Tensor stored(const at::Tensor& codes) { return codes.view(at::kFloat8_e4m3fn); }
at::Tensor stored_scales(const at::Tensor& scales) {
  return scales.scalar_type() == at::kByte ? scales.view(at::kFloat8_e8m0fnu) : scales;
}

struct Written {
  const char* config;
  const char* scale;
  Blocks blocks;
  at::ScalarType dtype;
};

constexpr const char* kBlockConfig =
    R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [32, 32]})";
constexpr const char* kChannelConfig = R"({"quant_method": "compressed-tensors", "config_groups":
    {"group_0": {"targets": ["Linear"],
                 "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}})";

TEST(Fp8Format, ReadsWhatEachToolWrites) {
  const Written all[] = {
      {kBlockConfig, "weight_scale_inv", {33, 70, 32, 32}, at::kFloat},
      {kBlockConfig, "weight_scale_inv", {33, 70, 32, 32}, at::kByte},
      {kBlockConfig, "scale", {64, 64, 32, 32}, at::kFloat},
      {R"({"quant_method": "fp8", "weight_block_size": null})",
       "weight_scale_inv",
       {12, 20, 12, 20},
       at::kFloat},
      {R"({"quant_method": "fbgemm_fp8"})", "weight_scale", {12, 20, 1, 20}, at::kFloat},
      {R"({"quant_method": "mxfp8"})", "weight_scale", {5, 96, 1, 32}, at::kByte},
      {kChannelConfig, "weight_scale", {12, 20, 1, 20}, at::kBFloat16},
      {R"({"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"],
           "weights": {"num_bits": 8, "type": "float", "strategy": "block",
                       "block_structure": [16, 8]}}}})",
       "weight_scale",
       {20, 20, 16, 8},
       at::kBFloat16}};
  for (const Written& written : all) {
    SCOPED_TRACE(written.config);
    const Fp8Tensor tensor = random_weight(written.blocks, written.dtype);
    const StoredLayer layer = layer_of({{"weight", stored(tensor.codes)},
                                        {written.scale, stored_scales(tensor.scales)},
                                        {"input_scale", at::ones({1})}},
                                       written.config, by_definition(tensor));
    const LayerRead found = read_layer(layer);
    EXPECT_EQ(found.read.size(), layer.tensors.size());
    EXPECT_EQ(found.weight->format(), Fp8Weight(tensor).format());
    EXPECT_TRUE(same_bytes(found.rows, layer.expected));
  }
}

TEST(Fp8Format, ExponentsMayBeStoredAsBytesAndScalesWithoutSecondSize) {
  const Fp8Tensor tensor = random_weight({5, 96, 1, 32}, at::kByte);
  const StoredLayer layer =
      layer_of({{"weight", stored(tensor.codes)}, {"weight_scale", tensor.scales}},
               R"({"quant_method": "mxfp8"})", by_definition(tensor));
  EXPECT_TRUE(same_bytes(read_layer(layer).rows, layer.expected));
  const Fp8Tensor channel = random_weight({7, 12, 1, 12}, at::kFloat);
  const StoredLayer flat =
      layer_of({{"weight", stored(channel.codes)}, {"weight_scale", channel.scales.flatten()}},
               kChannelConfig, by_definition(channel));
  EXPECT_TRUE(same_bytes(read_layer(flat).rows, flat.expected));
}

TEST(Fp8Format, AGridThatDividesTheMatrixTellsItsBlocks) {
  const Fp8Tensor tensor = random_weight({24, 40, 8, 20}, at::kFloat);
  const StoredLayer layer =
      layer_of({{"weight", stored(tensor.codes)}, {"weight_scale_inv", tensor.scales}},
               R"({"quant_method": "fp8"})", by_definition(tensor));
  const LayerRead found = read_layer(layer);
  EXPECT_EQ(found.weight->format(), "fp8 (8x20)");
  EXPECT_TRUE(same_bytes(found.rows, layer.expected));
}

TEST(Fp8Format, AMatrixOf16BitsIsNotPacked) {
  for (const at::ScalarType dtype : test::kFloatingTypes)
    EXPECT_FALSE(test::is_packed({{"weight", at::zeros({4, 4}, dtype)}}, kBlockConfig));
  EXPECT_FALSE(test::is_packed({{"bias", at::zeros({4})}}, kBlockConfig));
}

TEST(Fp8Format, TheSizeToldIsThatOfTheWeightRead) {
  const Written all[] = {
      {kBlockConfig, "weight_scale_inv", {33, 70, 32, 32}, at::kFloat},
      {R"({"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [32, 32]})",
       "weight_scale_inv",
       {33, 70, 32, 32},
       at::kByte},
      {R"({"quant_method": "fp8"})", "weight_scale_inv", {12, 20, 12, 20}, at::kFloat},
      {R"({"quant_method": "fbgemm_fp8"})", "weight_scale", {12, 20, 1, 20}, at::kFloat},
      {R"({"quant_method": "mxfp8"})", "weight_scale", {5, 96, 1, 32}, at::kByte},
      {kChannelConfig, "weight_scale", {12, 20, 1, 20}, at::kBFloat16}};
  for (const Written& written : all) {
    const Fp8Tensor tensor = random_weight(written.blocks, written.dtype);
    const LayerRead found = read_layer(
        layer_of({{"weight", stored(tensor.codes)}, {written.scale, stored_scales(tensor.scales)}},
                 written.config, by_definition(tensor)));
    const FrozenSize size =
        found.format->size("layer", WeightShape::matrix(written.blocks.out, written.blocks.in));
    EXPECT_EQ(size.format, found.weight->format()) << written.config;
    EXPECT_EQ(size.bytes, found.weight->bytes()) << written.config;
  }
}

std::string refusal(const NamedTensors& parts, const char* config = kBlockConfig) {
  return refusal_of(layer_of(parts, config, at::empty({64, 64})));
}

TEST(Fp8FormatRefusals, ValuesThatAreNoNumbersAreNamedWithTheirPlace) {
  const at::Tensor scales = at::ones({2, 2});
  for (const int code : {0x7f, 0xff}) {
    at::Tensor codes = random_codes(64, 64);
    codes[40][3] = code;
    EXPECT_THAT(refusal({{"weight", stored(codes)}, {"weight_scale_inv", scales}}),
                AllOf(HasSubstr("model.safetensors: tensor layer.weight"), HasSubstr("[40, 3]")));
  }
  const at::Tensor codes = random_codes(64, 64);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor damaged = scales.clone();
    damaged[1][0] = bad;
    EXPECT_THAT(refusal({{"weight", stored(codes)}, {"weight_scale_inv", damaged}}),
                AllOf(HasSubstr("layer.weight_scale_inv"), HasSubstr("[1, 0]")));
  }
  at::Tensor exponents = at::full({2, 2}, 120, at::kByte);
  exponents[0][1] = 255;
  EXPECT_THAT(refusal({{"weight", stored(codes)}, {"weight_scale_inv", stored_scales(exponents)}}),
              HasSubstr("[0, 1]"));
}

TEST(Fp8FormatRefusals, TensorsThatDoNotFitAreNamed) {
  const at::Tensor codes = random_codes(64, 64);
  EXPECT_THAT(refusal({{"weight", stored(codes)}}), HasSubstr("must have a scale beside it"));
  EXPECT_THAT(
      refusal({{"weight", stored(codes)}, {"weight_scale_inv", at::ones({2, 1})}}),
      AllOf(HasSubstr("layer.weight_scale_inv"), HasSubstr("32 x 32, [2, 2], found F32 [2, 1]")));
  EXPECT_THAT(refusal({{"weight", stored(codes)}, {"weight_scale_inv", at::ones({3, 2})}},
                      R"({"quant_method": "fp8"})"),
              HasSubstr("weight_block_size"));
  EXPECT_THAT(
      refusal({{"weight", stored(codes)}, {"weight_scale_inv", at::ones({2, 2}, at::kInt)}}),
      HasSubstr("found I32"));
  EXPECT_THAT(
      refusal({{"weight", stored(random_codes(64, 32))}, {"weight_scale_inv", at::ones({2, 2})}}),
      HasSubstr("must be F8_E4M3 [64, 64], found F8_E4M3 [64, 32]"));
  EXPECT_THAT(
      refusal({{"weight", codes.view(at::kFloat8_e5m2)}, {"weight_scale_inv", at::ones({2, 2})}}),
      HasSubstr("found F8_E5M2"));
}

TEST(Fp8FormatRefusals, BlocksThatOnlyTheConfigSaysMustBeLikely) {
  EXPECT_THAT(
      refusal({{"weight", stored(random_codes(64, 64))}, {"weight_scale_inv", at::ones({2, 2})}},
              R"({"quant_method": "fp8", "weight_block_size": [33, 32]})"),
      AllOf(HasSubstr("layer.weight_scale_inv must have blocks that divide 64"),
            HasSubstr("the config's 33 is not")));
}

TEST(Fp8Format, AGridOfOtherScalesThanTheConfigSaysIsWarnedOf) {
  StoredLayer layer = test::layer_of({{"weight", stored(at::full({64, 64}, 0x38, at::kByte))},
                                      {"weight_scale_inv", at::ones({64, 1})}},
                                     kBlockConfig, at::ones({64, 64}));
  layer.config_place = "blocks.json";
  EXPECT_THAT(test::warning_of(layer),
              HasSubstr("blocks.json.weight_block_size has 2 x 2 scales for layer, whose tensors "
                        "have 64 x 1 scales"));
}

TEST(Fp8FormatRefusals, AConfigurationThatCannotBeIsNamed) {
  const auto complaint = [](const char* config) {
    return refusal_of(nlohmann::json::parse(config));
  };
  EXPECT_THAT(complaint(R"({"quant_method": "fp8", "weight_block_size": [128]})"),
              HasSubstr("weight_block_size"));
  EXPECT_THAT(complaint(R"({"quant_method": "fp8", "weight_block_size": [0, 128]})"),
              HasSubstr("weight_block_size[0]"));
  EXPECT_THAT(complaint(R"({"quant_method": "fp8", "fmt": "e5m2"})"), HasSubstr("fmt"));
  EXPECT_THAT(complaint(R"({"quant_method": "fp8", "scale_fmt": "ue4m3"})"),
              AllOf(HasSubstr("config.json.scale_fmt must be float or ue8m0"), HasSubstr("ue4m3")));
  EXPECT_THAT(complaint(R"({"quant_method": "fp8", "expert_dtype": "fp4"})"),
              AllOf(HasSubstr("config.json.expert_dtype must be fp8"), HasSubstr("fp4")));
}

TEST(Fp8Format, DefaultsOfTransformersMayBeWrittenOut) {
  const nlohmann::json config = {
      {"quant_method", "fp8"}, {"scale_fmt", "float"}, {"expert_dtype", "fp8"}};
  EXPECT_EQ(make_stored_format(io::JsonNode(config, "config.json"))->name(), "FP8");
}

TEST(Fp8FormatRefusals, ARecipeThatAsksForAnotherQuantizationIsTold) {
  const StoredLayer layer =
      layer_of({{"weight", stored(random_codes(64, 64))}, {"weight_scale_inv", at::ones({2, 2})}},
               kBlockConfig, at::empty({64, 64}));
  QuantizationOptions options;
  options.method = "nf4";
  EXPECT_THAT(refusal_of(layer, options),
              AllOf(HasSubstr("ConfigError"), HasSubstr("FP8"), HasSubstr("nf4")));
}

class Fp8Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

TEST_F(Fp8Gpu, RowsHaveTheBitsOfTheCpu) {
  for (const Blocks& blocks : kBlocks)
    for (const at::ScalarType scales : kScaleTypes) {
      const Fp8Tensor host = random_weight(blocks, scales);
      const Fp8Weight on_cpu(host),
          on_gpu({host.codes.cuda(), host.scales.cuda(), host.block_rows, host.block_columns});
      for (const at::ScalarType dtype : test::kFloatingTypes) {
        EXPECT_TRUE(same_bytes(decoded_rows(on_gpu, dtype).cpu(), decoded_rows(on_cpu, dtype)))
            << on_cpu.format() << " " << c10::toString(dtype);
        EXPECT_TRUE(
            same_bytes(decoded_rows(on_gpu, 2, 5, dtype).cpu(), decoded_rows(on_cpu, 2, 5, dtype)));
      }
    }
}

}  // namespace
}  // namespace qlora::quant
