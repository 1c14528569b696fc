#include "lora/separate_experts.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "io/safetensors.h"
#include "lora/expert_adapters.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::lora {
namespace {
using test::TempDir;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::ThrowsMessage;
using testing::UnorderedElementsAre;

constexpr int64_t kRank = 2, kHidden = 6, kInner = 3;
const SeparateNames kMixtral{"block_sparse_moe", "w1", "w3", "w2"};
const std::string kModel = "base_model.model.model.layers.0.";

std::map<std::string, at::Tensor> by_name(const quant::NamedTensors& tensors) {
  return {tensors.begin(), tensors.end()};
}

// Of rank 2, and of twice the rank for gate_up_proj, as all-linear gives them.
LoraOptions options() {
  LoraOptions options;
  options.rank = kRank;
  options.alpha = 8;
  options.targets = {"q_proj"};
  options.target_parameters = {"down_proj", "gate.weight", "gate_up_proj"};
  give_gate_up_both_ranks(options);
  return options;
}

// Of two experts, a router, and a layer of attention.
quant::NamedTensors adapter() {
  at::manual_seed(3);
  quant::NamedTensors tensors;
  const auto add = [&](const std::string& module, int64_t in, int64_t out, int64_t rank) {
    tensors.emplace_back(kModel + module + ".lora_A.weight", at::randn({rank, in}));
    tensors.emplace_back(kModel + module + ".lora_B.weight", at::randn({out, rank}));
  };
  add("self_attn.q_proj", kHidden, kHidden, kRank);
  add("mlp.gate", kHidden, 2, kRank);
  for (const char* expert : {"mlp.experts.0.", "mlp.experts.1."}) {
    add(expert + std::string("gate_up_proj"), kHidden, 2 * kInner, 2 * kRank);
    add(expert + std::string("down_proj"), kInner, kHidden, kRank);
  }
  return tensors;
}

at::Tensor product(const std::map<std::string, at::Tensor>& tensors, const std::string& module) {
  return at::mm(tensors.at(kModel + module + ".lora_B.weight"),
                tensors.at(kModel + module + ".lora_A.weight"));
}

TEST(SeparateExperts, GateAndUpAreTheHalvesOfTheirProduct) {
  const auto joined = by_name(adapter());
  const auto separate = by_name(separate_experts(adapter(), options(), kMixtral).tensors);
  const at::Tensor both = product(joined, "mlp.experts.1.gate_up_proj");
  EXPECT_TRUE(
      at::allclose(product(separate, "block_sparse_moe.experts.1.w1"), both.narrow(0, 0, kInner)));
  EXPECT_TRUE(at::allclose(product(separate, "block_sparse_moe.experts.1.w3"),
                           both.narrow(0, kInner, kInner)));
  EXPECT_TRUE(at::equal(product(separate, "block_sparse_moe.experts.1.w2"),
                        product(joined, "mlp.experts.1.down_proj")));
  EXPECT_TRUE(at::equal(product(separate, "block_sparse_moe.gate"), product(joined, "mlp.gate")));
  EXPECT_TRUE(
      at::equal(product(separate, "self_attn.q_proj"), product(joined, "self_attn.q_proj")));
  EXPECT_EQ(separate.size(), 16u);
}

TEST(SeparateExperts, TargetsNameExpertsAndPatternsGiveTheirRanks) {
  const LoraOptions separate = separate_experts(adapter(), options(), kMixtral).options;
  EXPECT_THAT(separate.target_parameters, IsEmpty());
  EXPECT_THAT(
      separate.targets,
      UnorderedElementsAre("q_proj", "block_sparse_moe.gate", "experts.0.w1", "experts.0.w2",
                           "experts.0.w3", "experts.1.w1", "experts.1.w2", "experts.1.w3"));
  const LoraOptions gate = separate.of_path("model.layers.0.block_sparse_moe.experts.1.w1");
  EXPECT_EQ(gate.rank, 2 * kRank);
  EXPECT_EQ(gate.alpha, 16);
  const LoraOptions down = separate.of_path("model.layers.0.block_sparse_moe.experts.1.w2");
  EXPECT_EQ(down.rank, kRank);
  EXPECT_EQ(down.alpha, 8);
  EXPECT_EQ(separate.of_path("model.layers.0.block_sparse_moe.gate").rank, kRank);
}

TEST(SeparateExperts, PatternsOfExpertsWinOverThoseOfOtherMlps) {
  quant::NamedTensors tensors = adapter();
  const std::string shared = kModel + "mlp.shared_expert.gate_proj";
  tensors.emplace_back(shared + ".lora_A.weight", at::randn({5, kHidden}));
  tensors.emplace_back(shared + ".lora_B.weight", at::randn({kInner, 5}));
  LoraOptions given = options();
  given.rank_pattern["shared_expert.gate_proj"] = 5;
  const SeparateNames names{"mlp", "gate_proj", "up_proj", "down_proj"};
  const LoraOptions separate = separate_experts(tensors, given, names).options;
  EXPECT_EQ(separate.of_path("model.layers.0.mlp.experts.1.gate_proj").rank, 2 * kRank);
  EXPECT_EQ(separate.of_path("model.layers.0.mlp.shared_expert.gate_proj").rank, 5);
}

TEST(SeparateExperts, LayersThatAloneAreAdaptedAreNamedByTheirPaths) {
  LoraOptions given = options();
  given.target_parameters = {"model.layers.0.mlp.experts.down_proj",
                             "model.layers.0.mlp.experts.gate_up_proj"};
  const LoraOptions separate = separate_experts(adapter(), given, kMixtral).options;
  EXPECT_THAT(separate.targets, Contains("model.layers.0.block_sparse_moe.experts.1.w2"));
  EXPECT_THAT(separate.targets, Not(Contains("experts.1.w2")));
}

TEST(SeparateExperts, AreReadAsTheyWereBeforeTheyWereWritten) {
  const SeparateAdapter separate = separate_experts(adapter(), options(), kMixtral);
  TempDir directory;
  const std::string path = directory / "adapter_model.safetensors";
  quant::write_tensors(path, separate.tensors);
  LoraOptions read = separate.options;
  retarget_separate_experts(path, io::read_safetensors(path), read);
  EXPECT_THAT(read.targets, UnorderedElementsAre("q_proj"));
  EXPECT_THAT(read.target_parameters,
              UnorderedElementsAre("down_proj", "gate_up_proj", "gate.weight"));
  const LoraOptions gate_up = read.of_module("model.layers.0.mlp.experts.1.gate_up_proj");
  EXPECT_EQ(gate_up.rank, 2 * kRank);
  EXPECT_EQ(gate_up.alpha, 16);
  EXPECT_EQ(read.of_module("model.layers.0.mlp.experts.1.down_proj").rank, kRank);
  auto stored = by_name(separate.tensors);
  join_separate_experts(stored);
  const auto given = by_name(adapter());
  ASSERT_EQ(stored.size(), given.size());
  for (const auto& [name, tensor] : given) EXPECT_TRUE(at::equal(stored.at(name), tensor)) << name;
}

// As transformers 4 trains them: an A for each of gate and up.
quant::NamedTensors factors_with_two_as() {
  const std::string expert = kModel + "block_sparse_moe.experts.0.";
  quant::NamedTensors tensors;
  for (const char* matrix : {"w1", "w3"}) {
    tensors.emplace_back(expert + matrix + ".lora_A.weight", at::randn({kRank, kHidden}));
    tensors.emplace_back(expert + matrix + ".lora_B.weight", at::randn({kInner, kRank}));
  }
  return tensors;
}

TEST(SeparateExperts, FactorsWithTwoAsBecomeBlocks) {
  std::map<std::string, at::Tensor> stored;
  const quant::NamedTensors tensors = factors_with_two_as();
  TempDir directory;
  const std::string path = directory / "adapter_model.safetensors";
  quant::write_tensors(path, tensors);
  LoraOptions options;
  options.rank = kRank;
  options.alpha = 6;
  retarget_separate_experts(path, io::read_safetensors(path), options);
  const LoraOptions own = options.of_module("model.layers.0.mlp.experts.0.gate_up_proj");
  EXPECT_EQ(own.rank, 2 * kRank);
  EXPECT_EQ(own.alpha, 12);
  stored = by_name(tensors);
  join_separate_experts(stored);
  const at::Tensor both = product(stored, "mlp.experts.0.gate_up_proj");
  const auto separate = by_name(tensors);
  EXPECT_TRUE(at::allclose(both.narrow(0, 0, kInner),
                           product(separate, "block_sparse_moe.experts.0.w1"), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(both.narrow(0, kInner, kInner),
                           product(separate, "block_sparse_moe.experts.0.w3"), 1e-5, 1e-6));
}

// Twice the rank is the root of twice the divisor.
TEST(SeparateExperts, BlocksKeepTheScalingOfRsLora) {
  TempDir directory;
  const std::string path = directory / "adapter_model.safetensors";
  quant::write_tensors(path, factors_with_two_as());
  LoraOptions given;
  given.rank = kRank;
  given.alpha = 6;
  given.use_rslora = true;
  LoraOptions read = given;
  retarget_separate_experts(path, io::read_safetensors(path), read);
  const LoraOptions own = read.of_module("model.layers.0.mlp.experts.0.gate_up_proj");
  EXPECT_EQ(own.rank, 2 * kRank);
  EXPECT_DOUBLE_EQ(own.alpha, 6 * std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(own.scaling(), given.scaling());
}

TEST(SeparateExperts, HalvesOfOtherScalesAreRefused) {
  quant::NamedTensors tensors = factors_with_two_as();
  TempDir directory;
  const std::string path = directory / "adapter_model.safetensors";
  quant::write_tensors(path, tensors);
  LoraOptions options;
  options.rank = kRank;
  options.alpha_pattern["w1"] = options.alpha / 2;
  EXPECT_THAT([&] { retarget_separate_experts(path, io::read_safetensors(path), options); },
              ThrowsMessage<FormatError>(HasSubstr("different scales")));
}

TEST(SeparateExperts, GateWithoutUpIsRefused) {
  TempDir directory;
  const std::string path = directory / "adapter_model.safetensors";
  const std::string gate = kModel + "mlp.experts.0.gate_proj";
  quant::write_tensors(path, {{gate + ".lora_A.weight", at::randn({kRank, kHidden})},
                              {gate + ".lora_B.weight", at::randn({kInner, kRank})}});
  LoraOptions options;
  EXPECT_THAT([&] { retarget_separate_experts(path, io::read_safetensors(path), options); },
              ThrowsMessage<FormatError>(HasSubstr("one of gate and up alone")));
}

TEST(SeparateExperts, ExpertsOfDifferentRanksAreRefused) {
  quant::NamedTensors tensors;
  for (const int64_t expert : {0, 1}) {
    const std::string down = kModel + "mlp.experts." + std::to_string(expert) + ".down_proj";
    tensors.emplace_back(down + ".lora_A.weight", at::randn({kRank + expert, kInner}));
    tensors.emplace_back(down + ".lora_B.weight", at::randn({kHidden, kRank + expert}));
  }
  TempDir directory;
  const std::string path = directory / "adapter_model.safetensors";
  quant::write_tensors(path, tensors);
  LoraOptions options;
  EXPECT_THAT([&] { retarget_separate_experts(path, io::read_safetensors(path), options); },
              ThrowsMessage<FormatError>(HasSubstr("different ranks")));
}

}  // namespace
}  // namespace qlora::lora
