// Which modules get an adapter of which size.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "lora/adapter_file.h"
#include "lora/targets.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::lora {
namespace {

LoraOptions patterned() {
  LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.rank_pattern = {{"down_proj", 6}, {"layers\\.1\\.mlp\\.(gate|up)_proj", 2}};
  options.alpha_pattern = {{"down_proj", 3.0}};
  return options;
}

const LoraLinear& module_of(model::CausalLm& model, const std::string& name) {
  for (LinearGroup* group : model.groups())
    for (const LoraLinear& layer : group->layers())
      if (layer.name == name) return layer;
  throw Error("no module " + name);
}

TEST(RankPattern, ItNamesTheEndOfAPathByWholeComponents) {
  LoraOptions options = patterned();
  EXPECT_EQ(options.of_module("model.layers.0.mlp.down_proj").rank, 6);
  EXPECT_EQ(options.of_module("model.layers.0.mlp.up_proj").rank, 4);
  EXPECT_EQ(options.of_module("model.layers.1.mlp.up_proj").rank, 2);
  EXPECT_EQ(options.of_module("down_proj").rank, 6);
  EXPECT_EQ(options.of_module("model.layers.0.updown_proj").rank, 4);
  EXPECT_DOUBLE_EQ(options.of_module("x.down_proj").scaling(), 0.5);
  options.use_rslora = true;
  EXPECT_DOUBLE_EQ(options.of_module("x.down_proj").scaling(), 3.0 / std::sqrt(6.0));
}

TEST(LoraScaling, AlphaAtAnotherRankKeepsIt) {
  LoraOptions options;
  options.rank = 3;
  options.alpha = 16;
  for (const bool rslora : {false, true}) {
    options.use_rslora = rslora;
    LoraOptions wider = options;
    wider.rank = 12;
    wider.alpha = options.alpha_at_rank(12);
    EXPECT_DOUBLE_EQ(wider.scaling(), options.scaling());
    EXPECT_DOUBLE_EQ(wider.alpha, rslora ? 32 : 64);
  }
}

TEST(RankPattern, AdaptersHaveTheirOwnShapesAndScales) {
  const auto model = test::tiny_model();
  const AdapterSet adapters(patterned(), model->groups(), at::kFloat, 1);
  EXPECT_EQ(module_of(*model, "model.layers.0.mlp.down_proj").adapter->a.size(0), 6);
  EXPECT_DOUBLE_EQ(module_of(*model, "model.layers.0.mlp.down_proj").adapter->scaling, 0.5);
  EXPECT_EQ(module_of(*model, "model.layers.1.mlp.gate_proj").adapter->b.size(1), 2);
  EXPECT_EQ(module_of(*model, "model.layers.0.mlp.gate_proj").adapter->b.size(1), 4);
}

// Ranks may differ within a group of layers that share an input.
TEST(RankPattern, AGroupOfDifferentRanksComputesEachLayersOwnProduct) {
  const auto model = test::tiny_model();
  LoraOptions options = patterned();
  options.rank_pattern = {{"k_proj", 1}, {"v_proj", 7}};
  options.init = "default";
  const AdapterSet adapters(options, model->groups(), at::kFloat, 1);
  at::NoGradGuard no_grad;
  for (const AdapterTensor& tensor : adapters.tensors()) at::Tensor(tensor.value).normal_();
  const LinearGroup& qkv = *model->groups()[0];
  const at::Tensor x = at::randn({5, 32});
  ForwardContext context;
  context.workspace = &model->workspace();
  const auto y = qkv.forward(x, context);
  for (size_t i = 0; i < 3; ++i) {
    const LoraLinear& layer = qkv.layers()[i];
    const at::Tensor plain = layer.base->forward(x, model->workspace());
    const at::Tensor low_rank =
        x.mm(layer.adapter->a.t()).mm(layer.adapter->b.t()) * layer.adapter->scaling;
    EXPECT_TRUE(at::allclose(y[i], plain + low_rank, 1e-4, 1e-4)) << layer.name;
  }
}

TEST(RankPattern, TheAdapterFileCarriesItBothWays) {
  const test::TempDir dir;
  const auto model = test::tiny_model();
  AdapterSet adapters(patterned(), model->groups(), at::kFloat, 1);
  write_adapter(dir.path(), adapters, patterned(), {});
  const LoraOptions read = read_adapter_options(dir.path());
  EXPECT_EQ(read.rank_pattern, patterned().rank_pattern);
  EXPECT_EQ(read.alpha_pattern, patterned().alpha_pattern);
  const auto other = test::tiny_model();
  AdapterSet again(read, other->groups(), at::kFloat, 2);
  read_adapter_tensors(dir.path(), again);
  EXPECT_TRUE(at::equal(adapters.values(), again.values()));
}

LoraOptions overlapping() {
  LoraOptions options;
  options.rank_pattern = {{"layers.1.mlp.down_proj", 8}, {"down_proj", 2}, {".*", 3}};
  options.alpha_pattern = {{"q_proj", 5.0}, {"layers.0.self_attn.q_proj", 7.0}};
  return options;
}

// PEFT's get_pattern_key goes through the keys of the file as they stand there.
TEST(RankPattern, TheFirstKeyAsWrittenDecides) {
  const LoraOptions options = overlapping();
  EXPECT_EQ(options.of_module("model.layers.1.mlp.down_proj").rank, 8);
  EXPECT_EQ(options.of_module("model.layers.0.mlp.down_proj").rank, 2);
  EXPECT_EQ(options.of_module("model.layers.0.mlp.up_proj").rank, 3);
  EXPECT_EQ(options.of_module("model.layers.0.self_attn.q_proj").alpha, 5);
}

TEST(RankPattern, TheAdapterFileKeepsTheOrderOfKeys) {
  const test::TempDir dir;
  const auto model = test::tiny_model();
  const AdapterSet adapters(overlapping(), model->groups(), at::kFloat, 1);
  write_adapter(dir.path(), adapters, overlapping(), {});
  const std::string text = test::read_file(dir / "adapter_config.json");
  EXPECT_LT(text.find("\"layers.1.mlp.down_proj\""), text.find("\"down_proj\": 2"));
  EXPECT_LT(text.find("\"target_modules\""), text.find("\"task_type\""));
  const LoraOptions read = read_adapter_options(dir.path());
  EXPECT_EQ(read.rank_pattern, overlapping().rank_pattern);
  EXPECT_EQ(read.alpha_pattern, overlapping().alpha_pattern);
}

TEST(RankPattern, AKeyOfWhichEarlierOnesTakeAllModulesIsToldOf) {
  const std::vector<std::string> names = {"m.layers.0.self_attn.q_proj", "m.layers.0.mlp.down_proj",
                                          "m.layers.1.mlp.down_proj"};
  LoraOptions options = overlapping();
  EXPECT_THAT(idle_patterns(options, names),
              testing::ElementsAre(testing::StartsWith(
                  "lora.alpha_pattern: 'layers.0.self_attn.q_proj' decides nothing")));
  options.rank_pattern = {{"down_proj", 2}, {"layers.1.mlp.down_proj", 8}, {"zzz", 4}};
  options.alpha_pattern.clear();
  EXPECT_THAT(idle_patterns(options, names),
              testing::ElementsAre(testing::StartsWith(
                  "lora.rank_pattern: 'layers.1.mlp.down_proj' decides nothing")));
}

TEST(Targets, ExcludedModulesAndOtherLayersStayPlain) {
  const auto model = test::tiny_model();
  LoraOptions options;
  options.exclude_modules = {"down_proj", "model.layers.0.self_attn.q_proj"};
  options.layers_to_transform = {0};
  const AdapterSet adapters(options, model->groups(), at::kFloat, 1);
  EXPECT_EQ(adapters.num_modules(), 5);
  EXPECT_EQ(module_of(*model, "model.layers.0.self_attn.q_proj").adapter, nullptr);
  EXPECT_EQ(module_of(*model, "model.layers.1.self_attn.k_proj").adapter, nullptr);
  EXPECT_NE(module_of(*model, "model.layers.0.self_attn.k_proj").adapter, nullptr);
}

TEST(Targets, LeavingNothingToAdaptIsAnError) {
  const auto model = test::tiny_model();
  LoraOptions options;
  options.layers_to_transform = {9};
  EXPECT_THROW(AdapterSet(options, model->groups(), at::kFloat, 1), ConfigError);
}

TEST(Targets, PeftsExclusionsAndLayersAreRead) {
  const test::TempDir dir;
  const nlohmann::json config = {{"peft_type", "LORA"},
                                 {"r", 4},
                                 {"lora_alpha", 8},
                                 {"target_modules", {"q_proj", "v_proj"}},
                                 {"exclude_modules", {"layers.1.self_attn.v_proj"}},
                                 {"layers_to_transform", 1},
                                 {"rank_pattern", {{"v_proj", 2}}}};
  std::ofstream(dir / "adapter_config.json") << config.dump();
  const LoraOptions options = read_adapter_options(dir.path());
  EXPECT_EQ(options.layers_to_transform, std::vector<int64_t>{1});
  EXPECT_EQ(options.exclude_modules, std::vector<std::string>{"layers.1.self_attn.v_proj"});
  EXPECT_EQ(options.of_module("a.v_proj").rank, 2);
}

TEST(RankPattern, AWrongPatternOrRankIsNamed) {
  LoraOptions options = patterned();
  options.rank_pattern["("] = 4;
  EXPECT_THROW(options.validate(), ConfigError);
  options = patterned();
  options.rank_pattern["down_proj"] = 0;
  EXPECT_THROW(options.validate(), ConfigError);
  options = patterned();
  options.alpha_pattern["down_proj"] = -1;
  EXPECT_THROW(options.validate(), ConfigError);
}

}  // namespace
}  // namespace qlora::lora
