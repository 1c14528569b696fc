// Experts that stay in MXFP4, as gpt-oss' files stack them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/expert_tensors.h"
#include "quant/formats/mxfp4_weight.h"
#include "tests/support/decoded_rows.h"
#include "tests/support/quant_golden.h"
#include "tests/support/stored_layer.h"

namespace qlora::model {
namespace {

using test::decoded_rows;
using test::same_bytes;
using test::stored_file;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kExperts = 3, kInner = 32, kHidden = 96;

ExpertsSpec stacked_spec() {
  ExpertsSpec spec;
  spec.routing.experts = kExperts;
  spec.gate_up.out = 2 * kInner;
  spec.gate_up.in = kHidden;
  spec.down.out = kHidden;
  spec.down.in = kInner;
  spec.files.stacked_gate_up = "experts.gate_up_proj";
  spec.files.stacked_down = "experts.down_proj";
  spec.files.stacked_by_inputs = true;
  return spec;
}

quant::NamedTensors random_stacks() {
  const auto blocks = [](int64_t out, int64_t in) {
    return at::randint(0, 256, {kExperts, out, in / 32, 16}, at::kByte);
  };
  const auto scales = [](int64_t out, int64_t in) {
    return at::randint(110, 131, {kExperts, out, in / 32}, at::kByte);
  };
  return {{"layer.experts.gate_up_proj_blocks", blocks(2 * kInner, kHidden)},
          {"layer.experts.gate_up_proj_scales", scales(2 * kInner, kHidden)},
          {"layer.experts.down_proj_blocks", blocks(kHidden, kInner)},
          {"layer.experts.down_proj_scales", scales(kHidden, kInner)}};
}

ExpertParts parts_of(const io::TensorFile& file, const ExpertTensor& tensor) {
  return in_hugging_face(tensor, [&](const std::string& name) { return file.find(name); });
}

// What is said of the parts that `body` reads.
template <typename Body>
std::string complaint_of(const Body& body) {
  try {
    body();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "read";
}

TEST(PackedExperts, HoldWhatTheDecodedExpertHolds) {
  const ExpertsSpec spec = stacked_spec();
  const io::TensorFile file = stored_file(random_stacks());
  for (int64_t expert = 0; expert < kExperts; ++expert)
    for (const bool is_gate_up : {true, false}) {
      const ExpertTensor tensor{&spec, "layer.", "", expert, is_gate_up, false};
      const ExpertParts parts = parts_of(file, tensor);
      const auto packed = read_packed_expert(parts, at::kCPU);
      ASSERT_NE(packed, nullptr);
      EXPECT_EQ(packed->format(), "mxfp4");
      EXPECT_TRUE(same_bytes(decoded_rows(*packed), read_expert(tensor, parts, at::kFloat)));
    }
}

TEST(PackedExperts, HaveTheGatesRowsBeforeThoseOfUp) {
  const ExpertsSpec spec = stacked_spec();
  const quant::NamedTensors stacks = random_stacks();
  const io::TensorFile file = stored_file(stacks);
  const ExpertTensor tensor{&spec, "layer.", "", 1, true, false};
  const at::Tensor rows = decoded_rows(*read_packed_expert(parts_of(file, tensor), at::kCPU));
  const quant::Mxfp4Weight in_turn(stacks[0].second[1].flatten(1), stacks[1].second[1]);
  const at::Tensor expected = decoded_rows(in_turn);
  for (int64_t i = 0; i < kInner; ++i) {
    EXPECT_TRUE(at::equal(rows[i], expected[2 * i])) << "gate " << i;
    EXPECT_TRUE(at::equal(rows[kInner + i], expected[2 * i + 1])) << "up " << i;
  }
}

TEST(PackedExperts, AreNoneWhereTheFileHoldsNumbersOf16Bits) {
  const ExpertsSpec spec = stacked_spec();
  const io::TensorFile file =
      stored_file({{"layer.experts.down_proj", at::zeros({kExperts, kInner, kHidden}, at::kHalf)},
                   {"layer.experts.down_proj_bias", at::zeros({kExperts, kHidden})}});
  const ExpertParts parts = parts_of(file, {&spec, "layer.", "", 0, false, false});
  ASSERT_FALSE(parts.views.empty());
  EXPECT_EQ(read_packed_expert(parts, at::kCPU), nullptr);
}

TEST(PackedExperts, ColumnsThatAreNoWholeBlocksAreRefused) {
  ExpertsSpec spec = stacked_spec();
  spec.down.in = kInner + 8;
  const io::TensorFile file = stored_file(random_stacks());
  EXPECT_THAT(complaint_of([&] {
                parts_of(file, {&spec, "layer.", "", 0, false, false});
              }),
              AllOf(HasSubstr("experts.down_proj_blocks"), HasSubstr("the experts have 40")));
}

TEST(PackedExperts, AScaleBeyondWeightsIsRefused) {
  const ExpertsSpec spec = stacked_spec();
  for (const int exponent : {188, 255}) {
    quant::NamedTensors stacks = random_stacks();
    stacks[3].second[2][7][0] = exponent;
    const io::TensorFile file = stored_file(stacks);
    const ExpertParts parts = parts_of(file, {&spec, "layer.", "", 2, false, false});
    EXPECT_THAT(complaint_of([&] { read_packed_expert(parts, at::kCPU); }),
                AllOf(HasSubstr("experts.down_proj_scales"), HasSubstr("2^")));
  }
}

}  // namespace
}  // namespace qlora::model
