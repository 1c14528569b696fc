#include "quant/hqq/hqq_quantize.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/error.h"

namespace qlora::quant {
namespace {

using ::testing::HasSubstr;

constexpr int kAllBits[] = {1, 2, 3, 4, 8};

HqqOptions options_of(int bits, int64_t group_size, int axis) {
  HqqOptions options;
  options.bits = bits;
  options.group_size = group_size;
  options.axis = axis;
  return options;
}

QuantizedHqq quantized(const at::Tensor& weight, const HqqOptions& options,
                       at::ScalarType stored = at::kFloat) {
  return hqq_quantize(weight, options, stored, "m");
}

// Rows of different sizes, as in models.
at::Tensor normal_weight(int64_t out, int64_t in) {
  at::manual_seed(5);
  const at::Tensor values = 0.05 * at::randn({out, in});
  return values * at::exp(0.5 * at::randn({out, 1}));
}

at::Tensor grouped(const at::Tensor& weight, const QuantizedHqq& like) {
  return like.axis == 1 ? weight.view({-1, like.group_size}) : weight.view({like.group_size, -1});
}

// What min and max of each group alone give.
double mean_error_of_ranges(const at::Tensor& weight, const QuantizedHqq& like) {
  const at::Tensor w = grouped(weight, like);
  const double most = (1 << like.bits) - 1;
  const at::Tensor low = at::amin(w, like.axis, true);
  const at::Tensor step = (at::amax(w, like.axis, true) - low) / most;
  return (at::round((w - low) / step) * step + low - w).abs().mean().item<double>();
}

std::map<std::string, at::Tensor> file_tensors(const QuantizedHqq& weight) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : hqq_file_tensors(weight)) tensors[name] = tensor;
  return tensors;
}

std::string text(const at::Tensor& bytes) {
  const auto* data = bytes.const_data_ptr<uint8_t>();
  return {data, data + bytes.numel()};
}

// The codes of "W_q" by the format's own rule, one by one.
at::Tensor unpacked(const at::Tensor& words, int bits, int64_t rows) {
  const int count = bits == 3 ? 10 : 8 / bits;
  const at::Tensor wide = words.to(at::kLong);
  at::Tensor codes = at::empty({rows, words.size(1)}, at::kByte);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < words.size(1); ++c) {
      const int64_t word = wide[r % words.size(0)][c].item<int64_t>();
      const int64_t shift = (count - 1 - r / words.size(0)) * bits;
      codes[r][c] = (word >> shift) & ((1 << bits) - 1);
    }
  return codes;
}

TEST(Hqq, WeightsOnTheGridOfTheirCodesAreKept) {
  for (const int bits : kAllBits)
    for (const int axis : {0, 1}) {
      const int64_t most = (1 << bits) - 1;
      const at::Tensor codes = at::arange(256).remainder(most + 1).to(at::kFloat);
      const at::Tensor group = codes * 0.25 - 1.0;  // every code in each group
      const at::Tensor groups = group.expand({8, 256});
      const at::Tensor weight = (axis == 1 ? groups : groups.t()).contiguous();
      const QuantizedHqq result = quantized(weight, options_of(bits, 256, axis));
      EXPECT_TRUE(at::allclose(hqq_dequantize(result), weight, 1e-5, 1e-6))
          << bits << " bits, axis " << axis;
    }
}

TEST(Hqq, FittedZerosLowerTheMeanErrorOfTheRanges) {
  const at::Tensor weight = normal_weight(64, 128);
  for (const int bits : {2, 3})
    for (const int axis : {0, 1}) {
      const QuantizedHqq result = quantized(weight, options_of(bits, 64, axis));
      const double error = (hqq_dequantize(result) - weight).abs().mean().item<double>();
      EXPECT_LT(error, 0.98 * mean_error_of_ranges(weight, result)) << bits << ", axis " << axis;
      EXPECT_GT(error, 0.5 * mean_error_of_ranges(weight, result));
    }
}

TEST(Hqq, AGroupOfEqualWeightsIsNotDividedByItsRange) {
  const at::Tensor weight = at::full({16, 64}, 0.5);
  for (const int bits : kAllBits) {
    const at::Tensor values = hqq_dequantize(quantized(weight, options_of(bits, 64, 1)));
    EXPECT_TRUE(at::isfinite(values).all().item<bool>()) << bits;
  }
}

TEST(Hqq, GroupsRunOverTheFlatWeightOrAcrossIt) {
  const at::Tensor weight = normal_weight(24, 40);  // rows shorter than a group
  const QuantizedHqq along = quantized(weight, options_of(4, 80, 1));
  EXPECT_EQ(along.codes.sizes(), at::IntArrayRef({12, 80}));
  EXPECT_EQ(along.scales.sizes(), at::IntArrayRef({12, 1}));
  const QuantizedHqq across = quantized(weight, options_of(4, 80, 0));
  EXPECT_EQ(across.codes.sizes(), at::IntArrayRef({80, 12}));
  EXPECT_EQ(across.zeros.sizes(), at::IntArrayRef({1, 12}));
  const QuantizedHqq rows = quantized(weight, options_of(4, 0, 1));
  EXPECT_EQ(rows.group_size, 40);
  EXPECT_EQ(quantized(weight, options_of(4, 0, 0)).group_size, 24);
  for (const QuantizedHqq& result : {along, across, rows})
    EXPECT_LT((hqq_dequantize(result) - weight).abs().mean().item<double>(), 0.02);
}

TEST(Hqq, CodesAreMadeWithTheUnroundedScalesAndDecodedWithTheStoredOnes) {
  const at::Tensor weight = normal_weight(64, 64);
  const QuantizedHqq exact = quantized(weight, options_of(4, 64, 1));
  const QuantizedHqq half = quantized(weight, options_of(4, 64, 1), at::kHalf);
  EXPECT_TRUE(at::equal(exact.codes, half.codes));
  EXPECT_TRUE(at::equal(exact.scales.to(at::kHalf), half.scales));
  EXPECT_TRUE(at::equal(exact.zeros.to(at::kHalf), half.zeros));
  const at::Tensor expected =
      (half.codes.to(at::kFloat) - half.zeros.to(at::kFloat)) * half.scales.to(at::kFloat);
  EXPECT_TRUE(at::equal(hqq_dequantize(half), expected.view({64, 64})));
}

TEST(Hqq, FilesHoldTheCodesPackedAlongTheFirstDimension) {
  for (const int bits : kAllBits)
    for (const int axis : {0, 1}) {
      const QuantizedHqq result = quantized(normal_weight(24, 64), options_of(bits, 64, axis));
      const auto tensors = file_tensors(result);
      const at::Tensor& words = tensors.at("W_q");
      EXPECT_EQ(words.scalar_type(), bits == 3 ? at::kInt : at::kByte);
      EXPECT_TRUE(at::equal(unpacked(words, bits, result.codes.size(0)), result.codes))
          << bits << " bits, axis " << axis;
    }
}

TEST(Hqq, FilesDescribeTheLayerInTensors) {
  const auto tensors =
      file_tensors(quantized(normal_weight(24, 64), options_of(3, 64, 0), at::kBFloat16));
  EXPECT_EQ(tensors.size(), 19u);
  EXPECT_EQ(text(tensors.at("packing")), "3bit_32");
  EXPECT_EQ(text(tensors.at("unpack_view_dtype")), "torch.int32");
  EXPECT_EQ(text(tensors.at("compute_dtype")), "torch.bfloat16");
  EXPECT_EQ(tensors.at("scale").scalar_type(), at::kBFloat16);
  EXPECT_EQ(tensors.at("nbits").item<int64_t>(), 3);
  EXPECT_EQ(tensors.at("nbits").scalar_type(), at::kInt);
  EXPECT_EQ(tensors.at("nbits").dim(), 0);
  EXPECT_EQ(tensors.at("group_size").item<int64_t>(), 64);
  EXPECT_EQ(tensors.at("axis").item<int64_t>(), 0);
  EXPECT_EQ(tensors.at("shape").scalar_type(), at::kLong);
  EXPECT_EQ(tensors.at("shape")[0].item<int64_t>(), 24);
  EXPECT_EQ(tensors.at("shape")[1].item<int64_t>(), 64);
  EXPECT_EQ(tensors.at("round_zero").item<int64_t>(), 0);
}

std::string message_of(const at::Tensor& weight, const HqqOptions& options) {
  try {
    hqq_quantize(weight, options, at::kHalf, "layer.7");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Hqq, GroupsThatDoNotFitTheWeightAreRefusedByItsName) {
  EXPECT_THAT(message_of(normal_weight(10, 10), options_of(4, 64, 1)),
              testing::AllOf(HasSubstr("layer.7"), HasSubstr("100 weights")));
  // Three groups do not fill bytes of two codes.
  EXPECT_THAT(message_of(normal_weight(3, 64), options_of(4, 64, 1)),
              testing::AllOf(HasSubstr("layer.7"), HasSubstr("3 groups")));
  EXPECT_EQ(message_of(normal_weight(3, 64), options_of(3, 64, 1)), "");  // padded
}

TEST(HqqOptions, ValuesThatTheFormatDoesNotHaveAreRefused) {
  for (const int bits : {0, 5, 6, 16})
    EXPECT_THROW(options_of(bits, 64, 1).validate(), ConfigError);
  for (const int64_t size : {-1, 4, 60})
    EXPECT_THROW(options_of(4, size, 1).validate(), ConfigError);
  EXPECT_THROW(options_of(4, 64, 2).validate(), ConfigError);
  EXPECT_NO_THROW(options_of(1, 0, 0).validate());
}

}  // namespace
}  // namespace qlora::quant
