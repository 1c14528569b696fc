// quantization.fp32_cpu_offload: blocks on the cpu or on disk stay in float32, from the recipe to
// what is exported.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "base/device.h"
#include "base/error.h"
#include "export/quantized.h"
#include "quant/offload/host_weight.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/plan/plan.h"
#include "recipes/qlora_finetune.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Map = std::map<std::string, std::string>;

constexpr const char* kSmall =
    "model: {path: m, device_map: {model.layers.0: cpu}}\n"
    "quantization: {method: int8, fp32_cpu_offload: true}\n"
    "data: {train: [{path: rows.jsonl}]}\n"
    "train: {max_steps: 3}\n"
    "output: {dir: run}\n";

TEST(Fp32CpuOffload, ItIsReadAndWrittenBack) {
  const Recipe recipe = parse_recipe(kSmall, "r.yaml", "/base", {});
  EXPECT_TRUE(recipe.quantization.fp32_cpu_offload);
  const Recipe again = parse_recipe(write_recipe(recipe), "again.yaml", "/base", {});
  EXPECT_TRUE(again.quantization.fp32_cpu_offload);
}

TEST(Fp32CpuOffload, WhatDoesNotFitIsToldWithItsKey) {
  const auto expect = [](const std::vector<std::string>& overrides, const std::string& word) {
    EXPECT_THAT([&] { parse_recipe(kSmall, "r.yaml", "/base", overrides); },
                ThrowsMessage<ConfigError>(
                    AllOf(HasSubstr("quantization.fp32_cpu_offload"), HasSubstr(word))));
  };
  expect({"quantization.method=nf4"}, "is of int8, and the method is nf4");
  expect({"model.device_map={}"}, "there is no map");
  expect({"model.device_map=auto"}, "would be others whenever other memory is free");
  expect({"lora.init=pissa"}, "change the quantized base");
  expect({"output.save_base=true"}, "model.dtype: float32");
  EXPECT_NO_THROW(
      parse_recipe(kSmall, "r.yaml", "/base", {"output.save_base=true", "model.dtype=float32"}));
}

TEST(Fp32CpuOffload, ItsNameInTransformersPointsToIt) {
  EXPECT_THAT(
      [] {
        parse_recipe(kSmall, "r.yaml", "/base",
                     {"quantization.llm_int8_enable_fp32_cpu_offload=true"});
      },
      ThrowsMessage<ConfigError>(HasSubstr("it is quantization.fp32_cpu_offload here")));
}

class Fp32Offload : public ::testing::Test {
 protected:
  Fp32Offload() : recipe_(test::tiny_recipe(dir_.path())) {
    recipe_.quantization = {.method = "int8"};
    recipe_.model.dtype = "float32";
    recipe_.train.compute_dtype = "float32";
  }

  Recipe with(const std::string& run, const Map& device_map) const {
    Recipe recipe = recipe_;
    recipe.output.dir = dir_ / run;
    recipe.model.device_map = device_map;
    recipe.quantization.fp32_cpu_offload = !device_map.empty();
    return recipe;
  }
  // The same weights by skip_modules.
  Recipe skipping(const std::string& run, const std::vector<std::string>& modules) const {
    Recipe recipe = with(run, {});
    for (const std::string& module : modules) recipe.quantization.skip_modules.push_back(module);
    return recipe;
  }
  static void train(const Recipe& recipe) {
    const std::atomic<bool> stop = false;
    finetune(recipe, stop);
  }
  static std::string adapter(const Recipe& recipe) {
    return test::read_file(recipe.output.dir + "/adapter/adapter_model.safetensors");
  }
  static TrainedModel opened(const Recipe& recipe) {
    ModelChoice choice;
    choice.run_dir = recipe.output.dir;
    return open_model(choice);
  }
  static std::vector<std::string> formats(const model::CausalLm& model, int64_t layer) {
    std::vector<std::string> all;
    for (const lora::LinearGroup* group : model.layers[static_cast<size_t>(layer)].groups())
      for (const lora::LoraLinear& linear : group->layers()) all.push_back(linear.base->format());
    return all;
  }

  const test::TempDir dir_;
  Recipe recipe_;
};

TEST_F(Fp32Offload, TheBlocksNamedAreFloat32AndTheOthersInt8) {
  for (const char* place : {"cpu", "disk"}) {
    Recipe recipe = with("run", {{"model.layers.0", place}});
    recipe.model.dtype = "bfloat16";
    const BaseModel base = load_base(recipe, at::kCPU);
    EXPECT_THAT(formats(*base.model, 0), ::testing::Each(std::string("float32"))) << place;
    EXPECT_THAT(formats(*base.model, 1), ::testing::Each(std::string("int8"))) << place;
    EXPECT_THAT(base.record.quantization.skip_modules, ElementsAre("lm_head", "model.layers.0"));
    // The file's numbers are bfloat16: an adapter fits the base that skips these modules, too.
    Recipe plain = skipping("plain", {"model.layers.0"});
    plain.model.dtype = "bfloat16";
    EXPECT_EQ(base.record.hash, load_base(plain, at::kCPU).record.hash) << place;
  }
}

TEST_F(Fp32Offload, ARunEndsWithTheAdapterOfOneThatSkipsTheseModules) {
  const Recipe plain = skipping("plain", {"model.layers.0"});
  train(plain);
  const Recipe quantized = with("quantized", {});
  train(quantized);
  ASSERT_NE(adapter(quantized), adapter(plain));
  for (const char* place : {"cpu", "disk"}) {
    const Recipe away = with(std::string("on-") + place, {{"model.layers.0", place}});
    train(away);
    EXPECT_EQ(adapter(away), adapter(plain)) << place;
    EXPECT_EQ(opened(away).base.record.hash, opened(plain).base.record.hash) << place;
  }
}

TEST_F(Fp32Offload, InBfloat16ItsProductsAreMadeInFloat32) {
  Recipe recipe = with("run", {{"model.layers.0", "cpu"}});
  recipe.train.compute_dtype = "bfloat16";
  const BaseModel base = load_base(recipe, at::kCPU);
  const auto& linear = base.model->layers[0].groups().front()->layers().front();
  EXPECT_NE(dynamic_cast<const quant::HostWeight*>(linear.base.get()), nullptr);
  train(recipe);
  EXPECT_FALSE(adapter(recipe).empty());
}

TEST_F(Fp32Offload, ARunGoesOnWithTheSameBlocksWhereverTheyLie) {
  Recipe one = with("one", {{"model.layers.0", "cpu"}});
  one.train.max_steps = 3;
  one.train.on_extend = "rescale";
  Recipe two = one;
  two.output.dir = dir_ / "two";
  train(one);
  train(two);
  one.train.max_steps = two.train.max_steps = recipe_.train.max_steps;
  Recipe others = two;
  others.model.device_map = {{"model.layers.1", "cpu"}};
  EXPECT_THAT([&] { train(others); },
              ThrowsMessage<ConfigError>(HasSubstr("the same blocks on the cpu and on disk")));
  two.model.device_map = {{"model.layers.0", "disk"}};
  train(one);
  train(two);
  EXPECT_EQ(adapter(one), adapter(two));
}

TEST_F(Fp32Offload, TheTrainedModelIsExportedAsTheOneThatSkips) {
  const Recipe plain = skipping("plain", {"model.layers.0"});
  const Recipe away = with("away", {{"model.layers.0", "disk"}});
  train(plain);
  train(away);
  TrainedModel here = opened(plain), there = opened(away);
  export_model(here, {"merged", dir_ / "here", "bfloat16"});
  export_model(there, {"merged", dir_ / "there", "bfloat16"});
  EXPECT_EQ(test::read_file(dir_ / "there/model.safetensors"),
            test::read_file(dir_ / "here/model.safetensors"));
}

TEST_F(Fp32Offload, TheSavedBaseIsTheSameOnceMore) {
  Recipe recipe = with("run", {{"model.layers.0", "cpu"}});
  recipe.output.save_base = true;
  train(recipe);
  const BaseModel base = load_base(recipe, at::kCPU);
  Recipe saved = with_saved_base(recipe);
  ASSERT_NE(saved.model.path, recipe.model.path);
  EXPECT_EQ(load_base(saved, at::kCPU).record.hash, base.record.hash);
}

TEST_F(Fp32Offload, ThePlanCountsFourBytesAWeightOfThem) {
  Recipe recipe = with("run", {});
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  const auto bytes = [&](const Map& map, bool on_gpu, trainer::Phase phase) {
    const Recipe mapped = with("run", map);
    const trainer::PlannedRun run = planned_run(mapped, header, on_gpu);
    int64_t sum = 0;
    for (const trainer::MemoryLine& line : trainer::plan_memory(run).lines)
      if (line.phase == phase &&
          (line.purpose.starts_with("base weights") || line.purpose == "quantization scales"))
        sum += line.bytes;
    return sum;
  };
  int64_t numbers = 0, rows = 0;
  header.architecture.block(0).for_each_linear([&](const model::LinearSpec& linear) {
    numbers += linear.numbers();
    rows += linear.out;
  });
  const int64_t quantized = numbers + 4 * rows;  // of one of the two blocks
  using trainer::Phase;
  EXPECT_EQ(bytes({}, false, Phase::kAlways), 2 * quantized);
  const Map on_cpu = {{"model.layers.0", "cpu"}}, on_disk = {{"model.layers.0", "disk"}};
  EXPECT_EQ(bytes(on_cpu, false, Phase::kAlways), quantized + 4 * numbers);
  EXPECT_EQ(bytes(on_disk, false, Phase::kAlways), quantized);
  EXPECT_EQ(bytes(on_disk, false, Phase::kDisk), 4 * numbers);
  EXPECT_EQ(bytes(on_cpu, true, Phase::kAlways), quantized);
  EXPECT_EQ(bytes(on_cpu, true, Phase::kHost), 4 * numbers);
  const trainer::MemoryPlan on_gpu =
      trainer::plan_memory(planned_run(with("run", on_cpu), header, true));
  EXPECT_TRUE(std::ranges::none_of(on_gpu.lines, [](const trainer::MemoryLine& line) {
    return line.purpose == "blocks fetched from elsewhere";  // multiplied where they lie
  }));
}

TEST_F(Fp32Offload, AQuantizedDirectoryIsRefusedByName) {
  const BaseModel base = load_base(with("run", {}), at::kCPU);
  std::filesystem::create_directories(dir_ / "packed");
  exporting::write_quantized(dir_ / "packed", *base.model, recipe_.quantization, *base.tokenizer,
                             base.path, at::kFloat);
  Recipe recipe = with("run", {{"model.layers.0", "cpu"}});
  recipe.model.path = dir_ / "packed";
  EXPECT_THAT([&] { load_base(recipe, at::kCPU); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("quantization.fp32_cpu_offload"),
                                               HasSubstr("quantized already"))));
}

class Fp32OffloadGpu : public Fp32Offload {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
  }
};

TEST_F(Fp32OffloadGpu, ABlockOnTheHostComputesWhatOneOnTheGpuDoes) {
  const auto hidden = [](const Recipe& recipe) {
    const BaseModel base = load_base(recipe, at::Device("cuda:0"));
    model::ForwardInput input;
    input.tokens = {70, 71, 72, 73};
    input.positions = {0, 1, 2, 3};
    input.cu_seqlens = {0, 4};
    const at::NoGradGuard no_grad;
    return base.model->hidden(input).to(at::kCPU, at::kFloat);
  };
  const at::Tensor expected = hidden(skipping("plain", {"model.layers.0"})),
                   found = hidden(with("away", {{"model.layers.0", "cpu"}}));
  // The GPU may multiply with ten bits of mantissa (TF32).
  EXPECT_LT((found - expected).norm().item<float>(), 4 * 0x1p-10 * expected.norm().item<float>());
}

TEST_F(Fp32OffloadGpu, ARunTrainsWithBlocksInHostMemoryAndOnDisk) {
  for (const char* place : {"cpu", "disk"}) {
    Recipe recipe = with(std::string("on-") + place, {{"model.layers.0", place}});
    recipe.train.device = "cuda:0";
    recipe.train.compute_dtype = "bfloat16";
    train(recipe);
    EXPECT_FALSE(adapter(recipe).empty()) << place;
  }
}

}  // namespace
}  // namespace qlora::recipes
