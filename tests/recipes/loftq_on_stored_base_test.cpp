// LoftQ on a base that GPTQ or HQQ quantized before: the adapter begins with what that lost.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/error.h"
#include "model/load.h"
#include "recipes/before_loading.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/base_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {

class LoftqOnStoredBase : public ::testing::TestWithParam<const char*> {
 protected:
  LoftqOnStoredBase() : recipe_(test::tiny_recipe(dir_.path())), original_(recipe_.model.path) {
    QuantizeOptions options;
    options.model = original_;
    options.output = dir_ / "quantized";
    options.quantization.method = GetParam();
    options.gptq.bits = options.hqq.bits = 2;
    options.gptq.group_size = options.hqq.group_size = 16;
    options.calibration.data = recipe_.data.train.front();
    options.device = "cpu";
    quantize_model(options);
    recipe_.model.path = options.output;
    recipe_.quantization = {};
    recipe_.lora.init = "loftq";
    recipe_.lora.loftq.original = original_;
  }

  static at::Tensor values_of(const quant::FrozenWeight& weight) {
    at::Tensor values = at::empty({weight.out_features(), weight.in_features()}, at::kFloat);
    weight.dequantize_rows(0, 0, weight.out_features(), values);
    return values;
  }

  const test::TempDir dir_;
  Recipe recipe_;
  const std::string original_;
};

TEST_P(LoftqOnStoredBase, TheResidualIsSmallerWithTheAdapterThanWithout) {
  const BaseModel base = load_base(recipe_, at::kCPU);
  const auto source = model::open_weights(original_);
  EXPECT_EQ(base.factors.size(), 14u);
  for (lora::LinearGroup* group : base.model->groups())
    for (const lora::LoraLinear& layer : group->layers()) {
      ASSERT_TRUE(base.factors.contains(layer.name)) << layer.name;
      const at::Tensor weight = source->read(
          layer.name + ".weight", {layer.out_features(), layer.in_features()}, at::kFloat);
      const at::Tensor residual = weight - values_of(*layer.base);
      const lora::Factors& factors = base.factors.at(layer.name);
      const at::Tensor product =
          recipe_.lora.of_module(layer.name).scaling() * factors.b.mm(factors.a);
      const auto lost = residual.norm().item<double>();
      EXPECT_GT(lost, 0.1 * weight.norm().item<double>()) << layer.name;
      // Rank 4 of at most 32 takes away a quarter of the energy even of noise.
      EXPECT_LT((residual - product).norm().item<double>(), 0.95 * lost) << layer.name;
    }
}

// Before anything is loaded: by the recipe and the header of the files.
TEST_P(LoftqOnStoredBase, WithoutTheOriginalItIsRefusedAndSoAreInitsOfWeightsIn16Bit) {
  recipe_.lora.loftq.original.clear();
  EXPECT_THAT([&] { check_before_planning(recipe_); },
              ::testing::ThrowsMessage<ConfigError>(
                  ::testing::HasSubstr("lora.loftq.original must name the 16-bit model")));
  for (const char* init : {"pissa", "olora"}) {
    recipe_.lora.init = init;
    EXPECT_THAT([&] { check_before_planning(recipe_); },
                ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr(
                    std::string("lora.init: ") + init + " needs 16-bit weights, and ")))
        << init;
  }
}

TEST_P(LoftqOnStoredBase, AnOriginalThatIsNotThereIsRefusedByItsKey) {
  recipe_.lora.loftq.original = dir_ / "nowhere";
  EXPECT_THAT([&] { check_before_planning(recipe_); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr(
                  "lora.loftq.original: " + recipe_.lora.loftq.original + " does not exist")));
}

TEST_P(LoftqOnStoredBase, ARunTrainsItAndLeavesTheBaseAsItIs) {
  recipe_.train.max_steps = 1;
  const std::atomic<bool> stop = false;
  finetune(recipe_, stop);
  EXPECT_TRUE(std::filesystem::exists(recipe_.output.dir + "/adapter"));
  EXPECT_FALSE(std::filesystem::exists(recipe_.output.dir + "/base"));
}

INSTANTIATE_TEST_SUITE_P(Methods, LoftqOnStoredBase, ::testing::Values("gptq", "hqq"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace qlora::recipes
