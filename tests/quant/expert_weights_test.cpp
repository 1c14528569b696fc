// Weights [experts, out, in] in every format that make_frozen_weight() knows.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/safetensors.h"
#include "quant/formats/bitsandbytes_layout.h"
#include "quant/int8/int8.h"
#include "quant/make_frozen_weight.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::quant {
namespace {

struct Format {
  const char* method;
  bool double_quant;

  QuantizationOptions options() const {
    QuantizationOptions options;
    options.method = method;
    options.double_quant = double_quant;
    return options;
  }
  std::unique_ptr<FrozenWeight> make(const at::Tensor& weight) const {
    return make_frozen_weight(weight, options(), "experts");
  }
  bool is_int8() const { return std::string(method).starts_with("int8"); }
  bool is_packed() const { return std::string(method) != "none"; }
};

class ExpertWeights : public ::testing::TestWithParam<Format> {};

INSTANTIATE_TEST_SUITE_P(Formats, ExpertWeights,
                         ::testing::Values(Format{"none", false}, Format{"nf4", false},
                                           Format{"nf4", true}, Format{"fp4", false},
                                           Format{"fp4", true}, Format{"int8", false},
                                           Format{"int8_weight_only", false}),
                         [](const auto& info) {
                           return std::string(info.param.method) +
                                  (info.param.double_quant ? "_dq" : "");
                         });

// 960 elements an expert are 15 blocks of 64. 45 are not: blocks span experts, and the count is
// odd.
const std::vector<std::vector<int64_t>> kShapes = {{3, 24, 40}, {3, 5, 9}, {1, 8, 16}};

at::Tensor normal(const std::vector<int64_t>& shape) { return at::randn(shape) * 0.02; }

at::Tensor rows_of(const FrozenWeight& weight, int64_t expert) {
  at::Tensor rows = at::empty({weight.out_features(), weight.in_features()}, at::kFloat);
  weight.dequantize_rows(expert, 0, weight.out_features(), rows);
  return rows;
}

TEST_P(ExpertWeights, StoreWhatTheFlattenedTensorStores) {
  for (const auto& shape : kShapes) {
    const at::Tensor weight = normal(shape).to(at::kBFloat16);
    const auto stacked = GetParam().make(weight);
    const auto flat = GetParam().make(weight.view({shape[0] * shape[1], shape[2]}));
    EXPECT_EQ(stacked->num_experts(), shape[0]);
    EXPECT_EQ(stacked->out_features(), shape[1]);
    EXPECT_EQ(stacked->in_features(), shape[2]);
    EXPECT_EQ(stacked->bytes(), flat->bytes());
    const NamedTensors a = stacked->state(), b = flat->state();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].first, b[i].first);
      if (a[i].first.find("quant_state") == std::string::npos) {
        EXPECT_TRUE(at::equal(a[i].second.flatten(), b[i].second.flatten())) << a[i].first;
        continue;
      }
      const auto* text = reinterpret_cast<const char*>(a[i].second.const_data_ptr<uint8_t>());
      const auto json = nlohmann::json::parse(text, text + a[i].second.numel());
      EXPECT_EQ(json.at("shape"), nlohmann::json(shape));
    }
    const bool four_bit = GetParam().is_packed() && !GetParam().is_int8();
    if (!four_bit) {
      EXPECT_EQ(a[0].second.sizes().vec(), shape);
    }
  }
}

TEST_P(ExpertWeights, HaveTheirRowsBehindOneAnother) {
  for (const auto& shape : kShapes) {
    const at::Tensor weight = normal(shape);
    const auto stacked = GetParam().make(weight);
    const at::Tensor all = rows_of(*GetParam().make(weight.view({-1, shape[2]})), 0);
    for (int64_t expert = 0; expert < shape[0]; ++expert) {
      const at::Tensor expected = all.narrow(0, expert * shape[1], shape[1]);
      EXPECT_TRUE(at::equal(rows_of(*stacked, expert), expected)) << expert;
      at::Tensor part = at::empty({2, shape[2]}, at::kFloat);
      stacked->dequantize_rows(expert, 3, 5, part);
      EXPECT_TRUE(at::equal(part, expected.narrow(0, 3, 2))) << expert;
    }
  }
}

// Sums of at most 40 products of numbers below 5 and 0.1 in fp32: 40 * 2^-24 * 20 < 5e-5.
constexpr double kSumError = 5e-5;

TEST_P(ExpertWeights, AnExpertsProductIsThatOfItsRows) {
  if (std::string(GetParam().method) == "int8") {
    // Its input is rounded too; a row has its own scale, so that an expert alone has the same
    // codes.
    const at::Tensor weight = normal({3, 24, 40}), x = at::randn({7, 40});
    const auto stacked = GetParam().make(weight);
    Workspace workspace;
    for (int64_t expert = 0; expert < 3; ++expert)
      EXPECT_TRUE(at::equal(stacked->forward(x, workspace, expert),
                            int8_linear(x, quantize_int8(weight[expert].contiguous()), 6.0)));
    return;
  }
  for (const auto& shape : kShapes) {
    const auto stacked = GetParam().make(normal(shape));
    const at::Tensor x = at::randn({7, shape[2]});
    Workspace workspace;
    for (int64_t expert = 0; expert < shape[0]; ++expert)
      EXPECT_TRUE(at::allclose(stacked->forward(x, workspace, expert),
                               x.mm(rows_of(*stacked, expert).t()), 0, kSumError))
          << expert;
  }
}

TEST_P(ExpertWeights, AnExpertsInputGradientIsThatOfItsRows) {
  for (const auto& shape : kShapes) {
    const auto stacked = GetParam().make(normal(shape));
    const at::Tensor dy = at::randn({7, shape[1]});
    Workspace workspace;
    for (int64_t expert = 0; expert < shape[0]; ++expert) {
      const at::Tensor once = dy.mm(rows_of(*stacked, expert));
      at::Tensor dx = at::empty({7, shape[2]}, at::kFloat);
      stacked->input_gradient_into(dy, dx, false, workspace, expert);
      EXPECT_TRUE(at::allclose(dx, once, 0, kSumError)) << expert;
      stacked->input_gradient_into(dy, dx, true, workspace, expert);
      EXPECT_TRUE(at::allclose(dx, 2 * once, 0, 2 * kSumError)) << expert;
    }
  }
}

TEST_P(ExpertWeights, AreReadBackAsTheyWereWritten) {
  if (!GetParam().is_packed()) return;
  const test::TempDir dir;
  for (const auto& shape : kShapes) {
    const auto written = GetParam().make(normal(shape).to(at::kHalf));
    NamedTensors tensors;
    for (const auto& [name, tensor] : written->state())
      tensors.emplace_back("experts." + name, tensor);
    write_tensors(dir / "experts.safetensors", tensors);
    std::set<std::string> names;
    const auto read = read_bitsandbytes_module(
        io::read_safetensors(dir / "experts.safetensors"), "experts",
        WeightShape::of(shape, "test"), {GetParam().options().method == "int8_weight_only", 6.0},
        at::kCPU, names);
    EXPECT_EQ(names.size(), tensors.size());
    EXPECT_EQ(read->num_experts(), shape[0]);
    EXPECT_EQ(read->format(), written->format());
    for (int64_t expert = 0; expert < shape[0]; ++expert)
      EXPECT_TRUE(at::equal(rows_of(*read, expert), rows_of(*written, expert)));
  }
}

TEST_P(ExpertWeights, ExpertsAndRowsThatAreNotThereAreRefused) {
  const auto stacked = GetParam().make(normal({3, 24, 40}));
  at::Tensor rows = at::empty({24, 40}, at::kFloat);
  for (const int64_t expert : {-1, 3})
    EXPECT_THROW(stacked->dequantize_rows(expert, 0, 24, rows), Error) << expert;
  EXPECT_THROW(stacked->dequantize_rows(0, 1, 25, rows), Error);  // would reach into expert 1
  EXPECT_THROW(stacked->dequantize_rows(1, -1, 23, rows), Error);
  for (const auto& shape : std::vector<std::vector<int64_t>>{{960}, {2, 3, 4, 5}, {2, 0, 8}})
    EXPECT_THROW(GetParam().make(normal(shape)), Error);
}

TEST_P(ExpertWeights, AValueThatIsNoNumberIsNamedWithItsPlace) {
  if (!GetParam().is_packed()) return;
  at::Tensor weight = normal({3, 24, 40});
  weight[1][2][5] = std::numeric_limits<float>::infinity();
  try {
    GetParam().make(weight);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("experts.weight"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("got inf"));
    EXPECT_THAT(error.what(),
                ::testing::HasSubstr(GetParam().is_int8() ? "row 2, column 5 of expert 1"
                                                          : "flat index 1045 of 2880"));
  }
}

}  // namespace
}  // namespace qlora::quant
