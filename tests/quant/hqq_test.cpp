// HQQ weights: both axes, all widths, groups that are parts of rows or span them; and the layers of
// files that hold them.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "quant/formats/hqq_weight.h"
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
  double nbits;
  int axis;
  int64_t group_size, out, in;
  at::ScalarType scales = at::kHalf;

  int field() const { return nbits > 4 ? 8 : nbits == 1.58 ? 2 : static_cast<int>(nbits); }
  int64_t groups() const { return out * in / group_size; }
  int64_t rows() const { return axis == 1 ? groups() : group_size; }
  int64_t columns() const { return axis == 1 ? group_size : groups(); }
  int64_t num_codes() const { return std::llround(std::exp2(nbits)); }
  std::string width() const {
    return nbits == 1.58 ? "1.58" : std::to_string(static_cast<int>(nbits));
  }
  std::string name() const {
    return fmt::format("{} bits, axis {}, groups of {}, [{}, {}]", width(), axis, group_size, out,
                       in);
  }
};

// Groups that are no parts of rows: columns of the grouped matrix, or rows of it longer than those
// of the weight. 24 x 20 in groups of 32 are 15 rows, which 3 bits fill up to 20.
const Kind kKinds[] = {{4, 0, 16, 12, 20},
                       {4, 0, 64, 64, 64, at::kFloat},
                       {2, 0, 16, 12, 20, at::kBFloat16},
                       {1.58, 0, 8, 6, 28},
                       {1, 0, 8, 6, 28},
                       {3, 0, 64, 24, 40, at::kFloat},
                       {3, 0, 7, 7, 45},
                       {8, 0, 5, 10, 33, at::kBFloat16},
                       {5, 0, 16, 12, 20},
                       {6, 0, 16, 12, 20},
                       {3, 1, 32, 24, 20},
                       {4, 1, 40, 8, 20, at::kFloat},
                       {2, 1, 600, 48, 50},
                       {8, 1, 3, 9, 7}};
// Groups that are parts of rows.
const Kind kGrouped[] = {{4, 1, 16, 8, 48},   {4, 1, 48, 8, 48, at::kFloat},
                         {3, 1, 16, 7, 48},   {2, 1, 16, 8, 48, at::kBFloat16},
                         {1.58, 1, 8, 8, 48}, {1, 1, 8, 8, 48},
                         {8, 1, 16, 8, 48},   {5, 1, 16, 8, 48},
                         {6, 1, 16, 8, 48}};

// Codes and what they decode to, by the definition: one element after the other.
struct Made {
  Kind kind;
  std::vector<int> codes;
  at::Tensor packed, scales, zeros, expected;  // scales: [groups]
};

at::Tensor packed(const Kind& k, const std::vector<int>& codes) {
  const int parts = k.field() == 3 ? 10 : 8 / k.field();
  const int64_t height = (k.rows() + parts - 1) / parts;
  std::vector<int32_t> words(static_cast<size_t>(height * k.columns()));
  for (int64_t row = 0; row < k.rows(); ++row)
    for (int64_t column = 0; column < k.columns(); ++column) {
      const int shift = k.field() * static_cast<int>(parts - 1 - row / height);
      words[static_cast<size_t>(row % height * k.columns() + column)] |=
          codes[static_cast<size_t>(row * k.columns() + column)] << shift;
    }
  const at::Tensor tensor = at::tensor(words, at::kInt).view({height, k.columns()});
  return k.field() == 3 ? tensor : tensor.to(at::kByte);
}

Made make(const Kind& k) {
  Made made{k, {}, {}, {}, {}, at::empty({k.out, k.in}, at::kFloat)};
  const int64_t count = k.out * k.in;
  const at::Tensor random = at::randint(0, k.num_codes(), {count}, at::kInt);
  made.codes.assign(random.const_data_ptr<int>(), random.const_data_ptr<int>() + count);
  made.packed = packed(k, made.codes);
  made.scales = (at::rand({k.groups()}) * 0.01 + 0.001).to(k.scales);
  made.zeros = (at::rand({k.groups()}) * static_cast<double>(k.num_codes())).to(k.scales);
  const at::Tensor scales = made.scales.to(at::kFloat), zeros = made.zeros.to(at::kFloat);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t group = k.axis == 1 ? i / k.columns() : i % k.columns();
    made.expected.mutable_data_ptr<float>()[i] =
        (static_cast<float>(made.codes[static_cast<size_t>(i)]) -
         zeros.const_data_ptr<float>()[group]) *
        scales.const_data_ptr<float>()[group];
  }
  return made;
}

HqqTensor tensor_of(const Made& made) {
  const Kind& k = made.kind;
  return {k.field(), k.axis, k.out, k.in, k.group_size, made.packed, made.scales, made.zeros};
}

at::Tensor scalar(int value) { return at::full({}, value, at::kInt); }
at::Tensor flag(bool value) { return at::full({}, value ? 1 : 0, at::kByte); }
at::Tensor text(const std::string& value) {
  return at::tensor(std::vector<uint8_t>(value.begin(), value.end()), at::kByte);
}

std::string packing_of(const Kind& k) {
  return k.field() == 3 ? "3bit_32" : fmt::format("{}bit_u8", k.field());
}

at::Tensor one_a_group(const at::Tensor& values, const Kind& k) {
  return k.axis == 1 ? values.view({-1, 1}) : values.view({1, -1});
}

// As transformers writes a layer.
NamedTensors stored(const Made& made) {
  const Kind& k = made.kind;
  const bool whole = k.nbits == std::floor(k.nbits);
  return {{"W_q", made.packed},
          {"scale", one_a_group(made.scales, k)},
          {"zero", one_a_group(made.zeros, k)},
          {"nbits", whole ? scalar(static_cast<int>(k.nbits)) : at::full({}, k.nbits, at::kFloat)},
          {"group_size", scalar(static_cast<int>(k.group_size))},
          {"axis", scalar(k.axis)},
          {"shape", at::tensor({k.out, k.in}, at::kLong)},
          {"packing", text(packing_of(k))},
          {"unpack_view_dtype", text(k.field() == 3 ? "torch.int32" : "torch.uint8")},
          {"compute_dtype", text("torch.float16")},
          {"view_as_float", flag(false)},
          {"quant_scale", flag(false)},
          {"quant_zero", flag(false)},
          {"offload_meta", flag(false)},
          {"encoded_state_dict", flag(true)},
          {"stores_quant_config", flag(true)},
          {"channel_wise", flag(true)},
          {"optimize", flag(true)},
          {"round_zero", flag(k.nbits == 4)}};
}

std::string config_of(const Kind& k) {
  return fmt::format(R"({{"quant_method": "hqq", "quant_config": {{"weight_quant_params":
      {{"nbits": {}, "group_size": {}, "axis": {}}}}}}})",
                     k.width(), k.group_size, k.axis);
}

StoredLayer layer_of(const Made& made) {
  return test::layer_of(stored(made), config_of(made.kind), made.expected);
}

TEST(HqqWeight, RowsAreCodesLessAZeroTimesAScale) {
  for (const Kind& kind : kKinds) {
    const Made made = make(kind);
    const HqqWeight weight(tensor_of(made), "hqq");
    for (const at::ScalarType dtype : test::kFloatingTypes) {
      SCOPED_TRACE(fmt::format("{} {}", kind.name(), c10::toString(dtype)));
      EXPECT_TRUE(same_bytes(decoded_rows(weight, dtype), made.expected.to(dtype)));
      for (const auto& [begin, end] : {std::pair{0, 1}, std::pair{2, 5}, std::pair{1, 6}})
        EXPECT_TRUE(same_bytes(decoded_rows(weight, begin, end, dtype),
                               made.expected.slice(0, begin, end).to(dtype)));
    }
  }
}

TEST(HqqWeight, CodesComeOutAsTheyWentIn) {
  for (const Kind& kind : kKinds) {
    const Made made = make(kind);
    const at::Tensor codes = hqq_codes(tensor_of(made));
    EXPECT_TRUE(at::equal(codes.to(at::kInt).flatten(), at::tensor(made.codes, at::kInt)))
        << kind.name();
  }
}

TEST(HqqWeight, ProductsAreThoseOfTheDecodedRows) {
  for (const Kind& kind : kKinds)
    EXPECT_TRUE(test::multiplies_decoded_rows(HqqWeight(tensor_of(make(kind)), "hqq")))
        << kind.name();
}

TEST(HqqWeight, StateAndBytesAreWhatTheFileHolds) {
  const Made made = make(kKinds[0]);
  const HqqWeight weight(tensor_of(made), "hqq, 4 bit");
  EXPECT_EQ(weight.format(), "hqq, 4 bit");
  EXPECT_EQ(weight.bytes(), 12 * 20 / 2 + 2 * 2 * 15);
  const NamedTensors state = weight.state();
  ASSERT_EQ(state.size(), 3u);
  EXPECT_EQ(state[0].first, "W_q");
  EXPECT_TRUE(same_bytes(state[0].second, made.packed));
  EXPECT_TRUE(same_bytes(state[1].second, made.scales));
  EXPECT_TRUE(same_bytes(state[2].second, made.zeros));
}

TEST(HqqWeight, PartsThatDoNotFitTogetherAreRefused) {
  const auto refused = [](const auto& change) {
    HqqTensor tensor = tensor_of(make(kKinds[0]));
    change(tensor);
    EXPECT_THROW(HqqWeight(tensor, "hqq"), Error);
  };
  refused([](HqqTensor& t) { t.bits = 5; });
  refused([](HqqTensor& t) { t.bits = 2; });
  refused([](HqqTensor& t) { t.axis = 2; });
  refused([](HqqTensor& t) { t.axis = 1; });
  refused([](HqqTensor& t) { t.group_size = 7; });
  refused([](HqqTensor& t) { t.group_size = 0; });
  refused([](HqqTensor& t) { t.packed = t.packed.to(at::kInt); });
  refused([](HqqTensor& t) { t.scales = t.scales.narrow(0, 0, 14); });
  refused([](HqqTensor& t) { t.zeros = t.zeros.to(at::kFloat); });
}

TEST(HqqFormat, ReadsEachWidthAlongBothAxes) {
  const auto check_all = [](const auto& kinds) {
    for (const Kind& kind : kinds) {
      SCOPED_TRACE(kind.name());
      const Made made = make(kind);
      const StoredLayer layer = layer_of(made);
      const LayerRead found = read_layer(layer);
      EXPECT_EQ(found.read.size(), layer.tensors.size());
      EXPECT_EQ(found.weight->format(), "hqq, " + kind.width() + " bit");
      EXPECT_TRUE(same_bytes(found.rows, made.expected));
      const FrozenSize size = found.format->size("layer", WeightShape::matrix(kind.out, kind.in));
      EXPECT_EQ(size.format, found.weight->format());
      if (kind.scales != at::kFloat) {
        EXPECT_EQ(size.bytes, found.weight->bytes());
      }
    }
  };
  check_all(kKinds);
  check_all(kGrouped);
}

TEST(HqqFormat, BytesMayBeViewedAsNumbers) {
  for (const Kind& kind : {Kind{4, 0, 16, 12, 20}, Kind{3, 0, 64, 24, 40}, Kind{4, 1, 16, 8, 48}})
    for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
      const Made made = make(kind);
      StoredLayer layer = layer_of(made);
      const at::Tensor bytes = made.packed.view(at::kByte).flatten();
      layer.replace("W_q", bytes.view(dtype));
      layer.replace("view_as_float", flag(true));
      EXPECT_TRUE(same_bytes(read_layer(layer).rows, made.expected)) << kind.name();
    }
}

TEST(HqqFormat, ScalesAndZerosMayBeOfTwoTypes) {
  for (const Kind& kind : {kKinds[0], kGrouped[0]}) {
    const Made made = make(kind);
    StoredLayer layer = layer_of(made);
    layer.replace("zero", one_a_group(made.zeros.to(at::kFloat), kind));
    EXPECT_TRUE(same_bytes(read_layer(layer).rows, made.expected));
  }
}

// What comes of hqq's own pickle: whole numbers of 64 bits, no strings.
TEST(HqqFormat, SettingsThatAreNoNumbersMayBeMissing) {
  for (const Kind& kind : {kKinds[0], kKinds[10], kGrouped[0]}) {
    const Made made = make(kind);
    const NamedTensors parts = {{"W_q", made.packed},
                                {"scale", one_a_group(made.scales, kind)},
                                {"zero", one_a_group(made.zeros, kind)},
                                {"nbits", at::full({}, kind.nbits, at::kLong)},
                                {"shape", at::tensor({kind.out, kind.in}, at::kLong)}};
    const StoredLayer layer = test::layer_of(parts, config_of(kind), made.expected);
    EXPECT_TRUE(same_bytes(read_layer(layer).rows, made.expected)) << kind.name();
  }
}

TEST(HqqFormat, TensorsOfTheLayerDecideOverTheConfiguration) {
  const Made made = make(kKinds[0]);
  StoredLayer layer = test::layer_of(stored(made), config_of(kGrouped[4]), made.expected);
  EXPECT_TRUE(same_bytes(read_layer(layer).rows, made.expected));
  layer.config_place = "hqq.json";
  EXPECT_THAT(test::warning_of(layer), AllOf(HasSubstr("hqq.json has "), HasSubstr("for layer,"),
                                             HasSubstr("the tensors are used")));
}

TEST(HqqFormat, TagsOfTheConfigurationTellTheSizesOfTheirLayers) {
  const auto config = nlohmann::json::parse(R"({"quant_method": "hqq", "quant_config": {
      "self_attn.q_proj": {"weight_quant_params": {"nbits": 8, "group_size": null, "axis": 1}},
      "mlp.down_proj": {"weight_quant_params": {"nbits": 3, "group_size": 64, "axis": 0}}}})");
  const auto format = make_stored_format(io::JsonNode(config, "config.json"));
  const WeightShape shape = WeightShape::matrix(64, 32);
  const FrozenSize q = format->size("model.layers.7.self_attn.q_proj", shape);
  EXPECT_EQ(q.format, "hqq, 8 bit");
  EXPECT_EQ(q.bytes, 64 * 32 + 2 * 2 * 64);
  const FrozenSize down = format->size("model.layers.7.mlp.down_proj", shape);
  EXPECT_EQ(down.format, "hqq, 3 bit");
  EXPECT_EQ(down.bytes, 4 * 7 * 32 + 2 * 2 * 32);
}

TEST(HqqFormat, AMatrixOf16BitsIsNotPacked) {
  EXPECT_FALSE(test::is_packed({{"weight", at::zeros({4, 8}, at::kHalf)}}, config_of(kKinds[0])));
}

std::string refusal(const std::string& part, const at::Tensor& tensor,
                    const Kind& kind = kKinds[0]) {
  StoredLayer layer = layer_of(make(kind));
  layer.replace(part, tensor);
  return refusal_of(layer);
}

TEST(HqqFormatRefusals, SettingsThatCannotBeAreNamed) {
  EXPECT_THAT(refusal("nbits", scalar(9)),
              AllOf(HasSubstr("model.safetensors: tensor layer.nbits"), HasSubstr("1.58")));
  EXPECT_THAT(refusal("axis", scalar(2)), HasSubstr("layer.axis"));
  EXPECT_THAT(refusal("group_size", scalar(7)),
              AllOf(HasSubstr("layer.group_size"), HasSubstr("groups of 7")));
  EXPECT_THAT(refusal("group_size", at::full({}, std::nan(""), at::kFloat)),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal("shape", at::tensor({20, 12}, at::kLong)),
              AllOf(HasSubstr("layer.shape"), HasSubstr("[12, 20]"), HasSubstr("[20, 12]")));
  EXPECT_THAT(refusal("packing", text("4bit_u4")),
              AllOf(HasSubstr("layer.packing"), HasSubstr("4bit_u8"), HasSubstr("4bit_u4")));
  EXPECT_THAT(refusal("quant_scale", flag(true)),
              AllOf(HasSubstr("layer.quant_scale"), HasSubstr("quantized themselves")));
}

TEST(HqqFormatRefusals, TensorsOfAnotherSizeOrTypeAreNamed) {
  EXPECT_THAT(refusal("W_q", at::zeros({7, 15}, at::kByte)),
              AllOf(HasSubstr("layer.W_q"), HasSubstr("120 bytes")));
  EXPECT_THAT(refusal("W_q", at::zeros({2, 15}, at::kInt)), HasSubstr("found I32"));
  EXPECT_THAT(refusal("scale", at::ones({1, 14}, at::kHalf)),
              AllOf(HasSubstr("layer.scale"), HasSubstr("15 groups")));
  EXPECT_THAT(refusal("zero", at::ones({1, 15}, at::kByte)), HasSubstr("layer.zero"));
  StoredLayer uneven = layer_of(make({4, 1, 16, 6, 48}));  // 18 rows of the grouped matrix
  uneven.replace("nbits", scalar(2));
  uneven.remove("packing");
  EXPECT_THAT(refusal_of(uneven), AllOf(HasSubstr("layer.W_q"), HasSubstr("18 rows")));
  StoredLayer without = layer_of(make(kKinds[0]));
  without.remove("zero");
  EXPECT_THAT(refusal_of(without), HasSubstr("layer.zero"));
}

TEST(HqqFormatRefusals, DamagedValuesAreNamed) {
  at::Tensor scales = at::ones({1, 15}, at::kHalf);
  scales[0][11] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refusal("scale", scales), AllOf(HasSubstr("layer.scale"), HasSubstr("[0, 11]")));
  EXPECT_THAT(refusal("W_q", at::full({16, 15}, 32, at::kByte), Kind{5, 0, 16, 12, 20}),
              AllOf(HasSubstr("layer.W_q"), HasSubstr("above 31")));
}

TEST(HqqFormatRefusals, AConfigurationThatCannotBeIsNamed) {
  const auto config = nlohmann::json::parse(
      R"({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 9}}})");
  EXPECT_THAT(refusal_of(config), HasSubstr("quant_config.weight_quant_params.nbits"));
  QuantizationOptions options;
  options.method = "nf4";
  EXPECT_THAT(refusal_of(layer_of(make(kKinds[0])), options),
              AllOf(HasSubstr("ConfigError"), HasSubstr("HQQ"), HasSubstr("nf4")));
}

class HqqGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

TEST_F(HqqGpu, RowsHaveTheBitsOfTheCpu) {
  for (const Kind& kind : kKinds) {
    const Made made = make(kind);
    HqqTensor tensor = tensor_of(made);
    const HqqWeight on_cpu(tensor, "hqq");
    tensor.packed = tensor.packed.cuda();
    tensor.scales = tensor.scales.cuda();
    tensor.zeros = tensor.zeros.cuda();
    const HqqWeight on_gpu(tensor, "hqq");
    for (const at::ScalarType dtype : test::kFloatingTypes)
      EXPECT_TRUE(
          same_bytes(decoded_rows(on_gpu, 2, 5, dtype).cpu(), decoded_rows(on_cpu, 2, 5, dtype)))
          << kind.name();
  }
}

}  // namespace
}  // namespace qlora::quant
