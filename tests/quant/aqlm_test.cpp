// AQLM weights: sums of codebook entries times a scale, and the layers of files that hold them.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "quant/formats/aqlm_weight.h"
#include "tests/support/decoded_rows.h"
#include "tests/support/quant_golden.h"
#include "tests/support/stored_layer.h"

namespace qlora::quant {
namespace {

using test::decoded_rows;
using test::LayerRead;
using test::refusal_of;
using test::same_bytes;
using test::StoredLayer;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Kind {
  int64_t rows, columns;  // blocks
  int64_t num_codebooks, bits, out_group, in_group;
  at::ScalarType codes, codebooks;

  int64_t out() const { return rows * out_group; }
  int64_t in() const { return columns * in_group; }
  std::string config() const {
    return fmt::format(R"({{"quant_method": "aqlm", "num_codebooks": {}, "nbits_per_codebook": {},
                            "out_group_size": {}, "in_group_size": {},
                            "linear_weights_not_to_quantize": ["lm_head.weight"]}})",
                       num_codebooks, bits, out_group, in_group);
  }
};

// The usual ones; entries of 16, 4 and 3 columns; rows in groups; codes narrower than their type.
const Kind kKinds[] = {{6, 5, 2, 8, 1, 8, at::kChar, at::kHalf},
                       {6, 5, 1, 16, 1, 8, at::kShort, at::kHalf},
                       {4, 7, 1, 10, 2, 4, at::kShort, at::kHalf},
                       {4, 3, 3, 5, 1, 16, at::kChar, at::kBFloat16},
                       {5, 6, 2, 8, 2, 3, at::kShort, at::kFloat}};

AqlmTensor random_weight(const Kind& k) {
  const int64_t limit = k.codes == at::kChar ? 1 << 7 : 1 << 15;
  return {
      at::randint(-limit, limit, {k.rows, k.columns, k.num_codebooks}, k.codes),
      at::randn({k.num_codebooks, int64_t{1} << k.bits, k.out_group, k.in_group}).to(k.codebooks),
      (at::rand({k.rows}) * 0.1).to(k.codebooks)};
}

// An entry's index is the code modulo the number of entries: -1 is the last one.
at::Tensor by_definition(const AqlmTensor& w) {
  const at::Tensor codes = w.codes.to(at::kLong), books = w.codebooks.to(at::kFloat).contiguous(),
                   scales = w.scales.to(at::kFloat);
  const int64_t entries = books.size(1), out_group = books.size(2), in_group = books.size(3);
  at::Tensor rows = at::empty({w.out(), w.in()}, at::kFloat);
  for (int64_t r = 0; r < w.out(); ++r)
    for (int64_t i = 0; i < w.in(); ++i) {
      const int64_t block = r / out_group * codes.size(1) + i / in_group;
      float sum = 0;
      for (int64_t c = 0; c < books.size(0); ++c) {
        const int64_t code = codes.const_data_ptr<int64_t>()[block * books.size(0) + c];
        const int64_t entry = (code % entries + entries) % entries;
        sum += books.const_data_ptr<
            float>()[((c * entries + entry) * out_group + r % out_group) * in_group + i % in_group];
      }
      rows.mutable_data_ptr<float>()[r * w.in() + i] =
          sum * scales.const_data_ptr<float>()[r / out_group];
    }
  return rows;
}

TEST(AqlmWeight, RowsAreSumsOfEntriesTimesAScaleOnEveryInstructionSet) {
  for (const Kind& kind : kKinds) {
    const AqlmTensor tensor = random_weight(kind);
    const AqlmWeight weight(tensor);
    const at::Tensor expected = by_definition(tensor);
    for (const InstructionSet set : test::kInstructionSets) {
      const AtMost most(set);
      for (const at::ScalarType dtype : test::kFloatingTypes) {
        SCOPED_TRACE(
            fmt::format("{} {} {}", weight.format(), to_string(set), c10::toString(dtype)));
        EXPECT_TRUE(same_bytes(decoded_rows(weight, dtype), expected.to(dtype)));
        EXPECT_TRUE(
            same_bytes(decoded_rows(weight, 1, 4, dtype), expected.narrow(0, 1, 3).to(dtype)));
      }
    }
  }
}

TEST(AqlmWeight, ProductsAreThoseOfTheDecodedRows) {
  for (const Kind& kind : kKinds)
    EXPECT_TRUE(test::multiplies_decoded_rows(AqlmWeight(random_weight(kind))));
}

TEST(AqlmWeight, SaysWhatItIsAndHowMuchItKeeps) {
  const AqlmTensor tensor = random_weight(kKinds[0]);
  const AqlmWeight weight(tensor);
  EXPECT_EQ(weight.format(), "aqlm, 2x8");
  EXPECT_EQ(weight.bytes(), 6 * 5 * 2 + 2 * (2 * 256 * 8 + 6));
  EXPECT_EQ(AqlmWeight(random_weight(kKinds[1])).format(), "aqlm, 1x16");
  const NamedTensors state = weight.state();
  ASSERT_EQ(state.size(), 3u);
  EXPECT_EQ(state[0].first, "codes");
  EXPECT_TRUE(same_bytes(state[0].second, tensor.codes));
  EXPECT_TRUE(same_bytes(state[1].second, tensor.codebooks));
  EXPECT_TRUE(same_bytes(state[2].second, tensor.scales));
}

TEST(AqlmWeight, PartsThatDoNotFitTogetherAreRefused) {
  const auto refused = [](const auto& change) {
    AqlmTensor tensor = random_weight(kKinds[0]);
    change(tensor);
    EXPECT_THROW(AqlmWeight{tensor}, Error);
  };
  refused([](AqlmTensor& t) { t.codes = t.codes.to(at::kInt); });
  refused([](AqlmTensor& t) { t.codes = t.codes.narrow(2, 0, 1).contiguous(); });
  refused([](AqlmTensor& t) { t.codebooks = t.codebooks.narrow(1, 0, 255).contiguous(); });
  refused([](AqlmTensor& t) { t.codebooks = at::cat({t.codebooks, t.codebooks}, 1); });
  refused([](AqlmTensor& t) { t.codebooks = t.codebooks.to(at::kDouble); });
  refused([](AqlmTensor& t) { t.scales = t.scales.narrow(0, 0, 5); });
}

NamedTensors stored(const AqlmTensor& tensor) {
  return {{"codes", tensor.codes},
          {"codebooks", tensor.codebooks},
          {"scales", tensor.scales.view({-1, 1, 1, 1})}};
}

StoredLayer layer_of(const AqlmTensor& tensor, const Kind& kind) {
  return test::layer_of(stored(tensor), kind.config(), by_definition(tensor));
}

TEST(AqlmFormat, ReadsTheLayerAndTellsItsSizeBefore) {
  for (const Kind& kind : kKinds) {
    const AqlmTensor tensor = random_weight(kind);
    const StoredLayer layer = layer_of(tensor, kind);
    const LayerRead found = read_layer(layer);
    EXPECT_EQ(found.read.size(), layer.tensors.size());
    EXPECT_TRUE(same_bytes(found.rows, layer.expected));
    const FrozenSize size = found.format->size("layer", WeightShape::matrix(kind.out(), kind.in()));
    EXPECT_EQ(size.format, found.weight->format());
    // Codebooks of float32, and codes wider than they need, config.json does not tell.
    if (kind.codebooks != at::kFloat) {
      EXPECT_EQ(size.bytes, found.weight->bytes());
    }
  }
}

TEST(AqlmFormat, CodesThatAForwardPassTransposedAreTurnedBack) {
  for (const Kind& kind : kKinds) {
    const AqlmTensor tensor = random_weight(kind);
    StoredLayer layer = layer_of(tensor, kind);
    layer.replace("codes", tensor.codes.transpose(0, 1).contiguous());
    EXPECT_TRUE(same_bytes(read_layer(layer).rows, layer.expected));
  }
}

TEST(AqlmFormat, CodesOfASquareMatrixAreTakenAsTheyLie) {
  Kind kind = kKinds[0];
  kind.columns = kind.rows;
  const StoredLayer layer = layer_of(random_weight(kind), kind);
  EXPECT_TRUE(same_bytes(read_layer(layer).rows, layer.expected));
}

TEST(AqlmFormat, CodebooksThatTheConfigDoesNotHaveAreWarnedOf) {
  StoredLayer layer = layer_of(random_weight(kKinds[0]), kKinds[0]);
  layer.config["num_codebooks"] = 1;
  layer.config_place = "aqlm.json";
  EXPECT_THAT(test::warning_of(layer),
              HasSubstr("aqlm.json has codebooks [1, 256, 1, 8] for layer, whose tensors have [2, "
                        "256, 1, 8]"));
}

TEST(AqlmFormat, AMatrixOf16BitsIsNotPacked) {
  EXPECT_FALSE(test::is_packed({{"weight", at::zeros({4, 8}, at::kHalf)}}, kKinds[0].config()));
}

template <typename Change>
std::string refusal(const Change& change) {
  AqlmTensor tensor = random_weight(kKinds[0]);
  const at::Tensor expected = by_definition(tensor);
  change(tensor);
  return refusal_of(test::layer_of(stored(tensor), kKinds[0].config(), expected));
}

TEST(AqlmFormatRefusals, TensorsThatDoNotFitAreNamed) {
  EXPECT_THAT(refusal([](AqlmTensor& t) { t.codes = t.codes.narrow(0, 0, 5).contiguous(); }),
              AllOf(HasSubstr("layer.codes"), HasSubstr("[6, 5, 2]"), HasSubstr("[5, 5, 2]")));
  EXPECT_THAT(refusal([](AqlmTensor& t) { t.codes = t.codes.to(at::kInt); }),
              HasSubstr("found I32"));
  EXPECT_THAT(refusal([](AqlmTensor& t) { t.codebooks = t.codebooks.narrow(1, 0, 100); }),
              AllOf(HasSubstr("layer.codebooks"), HasSubstr("power of two")));
  EXPECT_THAT(refusal([](AqlmTensor& t) {
                t.codebooks = at::cat({t.codebooks, t.codebooks}, 1);
              }),
              HasSubstr("512 entries"));
  EXPECT_THAT(refusal([](AqlmTensor& t) {
                t.codebooks = t.codebooks.repeat({1, 1, 1, 2});
              }),
              HasSubstr("[6, 40]"));
  EXPECT_THAT(refusal([](AqlmTensor& t) { t.scales = t.scales.narrow(0, 0, 4); }),
              AllOf(HasSubstr("layer.scales"), HasSubstr("[6, 1, 1, 1]")));
}

TEST(AqlmFormatRefusals, ValuesThatAreNoNumbersAreNamedWithTheirPlace) {
  EXPECT_THAT(refusal([](AqlmTensor& t) {
                t.codebooks[1][7][0][3] = std::numeric_limits<float>::infinity();
              }),
              AllOf(HasSubstr("layer.codebooks"), HasSubstr("[1, 7, 0, 3]")));
  EXPECT_THAT(refusal([](AqlmTensor& t) { t.scales[2] = std::numeric_limits<float>::quiet_NaN(); }),
              AllOf(HasSubstr("layer.scales"), HasSubstr("[2, 0, 0, 0]")));
}

TEST(AqlmFormatRefusals, AMissingPartIsNamed) {
  StoredLayer layer = layer_of(random_weight(kKinds[0]), kKinds[0]);
  layer.remove("scales");
  EXPECT_THAT(refusal_of(layer), AllOf(HasSubstr("model.safetensors"), HasSubstr("layer.scales")));
}

TEST(AqlmFormatRefusals, WhatCannotBeIsRefusedBeforeTensorsAreRead) {
  const nlohmann::json config = {{"quant_method", "aqlm"}, {"nbits_per_codebook", 17}};
  EXPECT_THAT(refusal_of(config), HasSubstr("nbits_per_codebook"));
  QuantizationOptions options;
  options.method = "int8";
  EXPECT_THAT(refusal_of(layer_of(random_weight(kKinds[0]), kKinds[0]), options),
              AllOf(HasSubstr("ConfigError"), HasSubstr("AQLM"), HasSubstr("int8")));
}

class AqlmGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

TEST_F(AqlmGpu, RowsHaveTheBitsOfTheCpu) {
  for (const Kind& kind : kKinds) {
    const AqlmTensor host = random_weight(kind);
    const AqlmWeight on_cpu(host),
        on_gpu({host.codes.cuda(), host.codebooks.cuda(), host.scales.cuda()});
    for (const at::ScalarType dtype : test::kFloatingTypes)
      EXPECT_TRUE(
          same_bytes(decoded_rows(on_gpu, 1, 4, dtype).cpu(), decoded_rows(on_cpu, 1, 4, dtype)))
          << on_cpu.format();
  }
}

}  // namespace
}  // namespace qlora::quant
