// Runs on bases that GPTQ and HQQ quantized: where their weights lie, and what is exported of them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>

#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {

struct Kind {
  const char* name;
  const char* method;
  quant::GptqOrder order;
  int axis;
};

class GroupedBase : public ::testing::TestWithParam<Kind> {
 protected:
  GroupedBase() : recipe_(test::tiny_recipe(dir_.path())) {
    QuantizeOptions options;
    options.model = recipe_.model.path;
    options.output = dir_ / "quantized";
    options.quantization.method = GetParam().method;
    options.gptq.group_size = options.hqq.group_size = 16;
    options.gptq.order = GetParam().order;
    options.hqq.axis = GetParam().axis;
    options.calibration.data = recipe_.data.train.front();
    options.device = "cpu";
    quantize_model(options);
    recipe_.model.path = options.output;
    recipe_.quantization = {};
  }

  Recipe trained(const std::string& run, const std::string& place = "") const {
    Recipe recipe = recipe_;
    recipe.output.dir = dir_ / run;
    if (!place.empty()) recipe.model.device_map = {{"", place}};
    const std::atomic<bool> stop = false;
    finetune(recipe, stop);
    return recipe;
  }
  static std::string adapter(const Recipe& recipe) {
    return test::read_file(recipe.output.dir + "/adapter/adapter_model.safetensors");
  }
  static TrainedModel opened(const Recipe& recipe) {
    ModelChoice choice;
    choice.run_dir = recipe.output.dir;
    return open_model(choice);
  }

  const test::TempDir dir_;
  Recipe recipe_;
};

TEST_P(GroupedBase, ARunFromDiskEndsWithTheAdapterOfThePlainRun) {
  const Recipe plain = trained("plain"), away = trained("away", "disk");
  ASSERT_FALSE(adapter(plain).empty());
  EXPECT_EQ(adapter(away), adapter(plain));
  EXPECT_EQ(opened(away).base.record.hash, opened(plain).base.record.hash);
}

TEST_P(GroupedBase, TheAdapterIsMergedIntoTheDecodedWeights) {
  TrainedModel run = opened(trained("run"));
  dequantize_model(recipe_.model.path, dir_ / "decoded", "float32");
  std::map<std::string, at::Tensor> decoded;
  for (const auto& [name, tensor] : quant::read_tensors(dir_ / "decoded" + "/model.safetensors"))
    decoded[name] = tensor;
  const exporting::Agreement found = export_model(run, {"merged", dir_ / "merged", "float32"});
  EXPECT_GT(found.top1, 0.9);
  int changed = 0;
  for (const auto& [name, tensor] : quant::read_tensors(dir_ / "merged" + "/model.safetensors")) {
    ASSERT_TRUE(decoded.contains(name)) << name;
    const at::Tensor& before = decoded.at(name);
    const auto size = before.to(at::kFloat).norm().item<double>();
    EXPECT_LT((tensor.to(at::kFloat) - before).norm().item<double>(), 0.5 * size) << name;
    changed += at::equal(tensor.to(at::kFloat), before.to(at::kFloat)) ? 0 : 1;
  }
  EXPECT_EQ(changed, 14);  // the layers with adapters
}

TEST_P(GroupedBase, TheCardNamesItsKindAndThePackagesThatLoadIt) {
  const std::string card = test::read_file(trained("run").output.dir + "/adapter/README.md");
  const bool is_gptq = GetParam().method == std::string("gptq");
  EXPECT_THAT(card, ::testing::HasSubstr(is_gptq ? "GPTQ, 4 bit, groups of 16"
                                                 : "HQQ, 4 bit, groups of 16"));
  EXPECT_THAT(card, ::testing::HasSubstr(is_gptq ? "peft optimum gptqmodel\n" : "peft hqq\n"));
}

INSTANTIATE_TEST_SUITE_P(Formats, GroupedBase,
                         ::testing::Values(Kind{"Gptq", "gptq", quant::GptqOrder::kGroups, 1},
                                           Kind{"GptqActOrder", "gptq",
                                                quant::GptqOrder::kActivations, 1},
                                           Kind{"Hqq", "hqq", quant::GptqOrder::kGroups, 1},
                                           Kind{"HqqAxis0", "hqq", quant::GptqOrder::kGroups, 0}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace qlora::recipes
