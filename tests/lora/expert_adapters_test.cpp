// Adapters of experts in the files of a family whose gate_up_proj has the rows of gate and up in
// turn (gpt-oss), value by value.
#include "lora/expert_adapters.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "lora/rows_in_turn.h"

namespace qlora::lora {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;
using testing::UnorderedElementsAre;

constexpr int64_t kExperts = 2, kRank = 3, kHidden = 5, kInner = 4;
const std::string kStack = "base_model.model.model.layers.0.mlp.experts.";

std::string name_of(int64_t expert, const std::string& tensor) {
  return kStack + std::to_string(expert) + "." + tensor + ".weight";
}

// Each number of an adapter says where it is: expert, row, column.
at::Tensor counted(int64_t expert, int64_t rows, int64_t columns) {
  at::Tensor tensor = at::empty({rows, columns}, at::kFloat);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      tensor[row][column] = static_cast<float>(10'000 * expert + 100 * row + column);
  return tensor;
}

// Of a model whose files have gate and up in turn, as AdapterSet::tensors() lists them.
std::vector<AdapterTensor> adapter() {
  std::vector<AdapterTensor> tensors;
  for (int64_t e = 0; e < kExperts; ++e) {
    tensors.push_back({name_of(e, "gate_up_proj.lora_A"), counted(e, kRank, kHidden), {}});
    tensors.push_back({.name = name_of(e, "gate_up_proj.lora_B"),
                       .value = counted(e, 2 * kInner, kRank),
                       .gradient = {},
                       .in_turn = true});
    tensors.push_back({name_of(e, "down_proj.lora_A"), counted(e, kRank, kInner), {}});
    tensors.push_back({name_of(e, "down_proj.lora_B"), counted(e, kHidden, kRank), {}});
  }
  return tensors;
}

std::map<std::string, at::Tensor> stacked(const std::vector<AdapterTensor>& tensors) {
  quant::NamedTensors named;
  for (const AdapterTensor& tensor : tensors) named.emplace_back(tensor.name, tensor.value);
  std::map<std::string, at::Tensor> stacks;
  for (const auto& [name, tensor] : with_experts_stacked(tensors, named))
    stacks.emplace(name.substr(kStack.size()), tensor);
  return stacks;
}

float value_at(const at::Tensor& tensor, int64_t row, int64_t column) {
  return tensor[row][column].item<float>();
}

TEST(RowsInTurn, TheFirstOfEachHalfComeFirst) {
  const at::Tensor halves = at::tensor({0, 1, 2, 10, 11, 12});
  const at::Tensor turns = at::tensor({0, 10, 1, 11, 2, 12});
  EXPECT_TRUE(at::equal(rows_in_turn(halves), turns));
  EXPECT_TRUE(at::equal(rows_in_halves(turns), halves));
  const at::Tensor blocks = counted(0, 6, 8).view({6, 4, 2});
  EXPECT_TRUE(at::equal(rows_in_turn(blocks)[3], blocks[4]));
  EXPECT_TRUE(at::equal(rows_in_halves(rows_in_turn(blocks)), blocks));
}

TEST(ExpertAdapters, AStackHasGateAndUpInTurnRankByRank) {
  const auto stacks = stacked(adapter());
  std::vector<std::string> names;
  for (const auto& [name, tensor] : stacks) names.push_back(name);
  EXPECT_THAT(names, UnorderedElementsAre("base_layer.lora_A.weight", "base_layer.lora_B.weight",
                                          "lora_A.weight", "lora_B.weight"));
  const at::Tensor& b = stacks.at("base_layer.lora_B.weight");
  ASSERT_EQ(b.sizes(), (std::vector<int64_t>{2 * kInner, kRank * kExperts}));
  for (int64_t e = 0; e < kExperts; ++e)
    for (int64_t i = 0; i < kInner; ++i)
      for (int64_t r = 0; r < kRank; ++r) {
        const auto gate = static_cast<float>(10'000 * e + 100 * i + r);
        const auto up = static_cast<float>(10'000 * e + 100 * (kInner + i) + r);
        EXPECT_EQ(value_at(b, 2 * i, r * kExperts + e), gate) << e << " " << i << " " << r;
        EXPECT_EQ(value_at(b, 2 * i + 1, r * kExperts + e), up) << e << " " << i << " " << r;
      }
}

TEST(ExpertAdapters, OtherFactorsKeepTheOrderOfTheirRows) {
  const auto stacks = stacked(adapter());
  EXPECT_TRUE(at::equal(stacks.at("base_layer.lora_A.weight"),
                        at::cat({counted(0, kRank, kHidden), counted(1, kRank, kHidden)})));
  for (int64_t row = 0; row < kHidden; ++row)
    EXPECT_EQ(value_at(stacks.at("lora_B.weight"), row, 2 * kExperts + 1),
              static_cast<float>(10'000 + 100 * row + 2));
}

TEST(ExpertAdapters, AStackWithoutTurnsHasTheGateAboveUp) {
  std::vector<AdapterTensor> tensors = adapter();
  for (AdapterTensor& tensor : tensors) tensor.in_turn = false;
  const auto stacks = stacked(tensors);
  const at::Tensor& b = stacks.at("base_layer.lora_B.weight");
  for (int64_t row = 0; row < 2 * kInner; ++row)
    EXPECT_EQ(value_at(b, row, 0), static_cast<float>(100 * row));
}

TEST(ExpertAdapters, AStackIsReadAsItWasBeforeItWasWritten) {
  const std::vector<AdapterTensor> wanted = adapter();
  std::map<std::string, at::Tensor> stored;
  for (const auto& [name, tensor] : stacked(wanted)) stored.emplace(kStack + name, tensor);
  take_experts_apart("file", wanted, stored);
  ASSERT_EQ(stored.size(), wanted.size());
  for (const AdapterTensor& tensor : wanted)
    EXPECT_TRUE(at::equal(stored.at(tensor.name), tensor.value)) << tensor.name;
}

// There gate and up are two matrices.
TEST(ExpertAdapters, TheFormOfTransformers4HasNoTurns) {
  std::map<std::string, at::Tensor> stored;
  const at::Tensor a = counted(1, kRank, kHidden), b = counted(1, 2 * kInner, kRank);
  stored[name_of(1, "gate_proj.lora_A")] = stored[name_of(1, "up_proj.lora_A")] = a;
  stored[name_of(1, "gate_proj.lora_B")] = b.narrow(0, 0, kInner);
  stored[name_of(1, "up_proj.lora_B")] = b.narrow(0, kInner, kInner);
  take_experts_apart("file", adapter(), stored);
  EXPECT_TRUE(at::equal(stored.at(name_of(1, "gate_up_proj.lora_B")), b));
}

TEST(ExpertAdapters, AStackOfAnotherNumberOfExpertsIsRefused) {
  std::map<std::string, at::Tensor> stored = {
      {kStack + "base_layer.lora_B.weight", at::zeros({2 * kInner, kRank * kExperts + 1})}};
  EXPECT_THAT([&] { take_experts_apart("file", adapter(), stored); },
              ThrowsMessage<FormatError>(HasSubstr("of 2 experts")));
}

}  // namespace
}  // namespace qlora::lora
