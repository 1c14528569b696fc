// model.device_map: ranks, from the recipe to the adapter.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using distributed::Group;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr const char* kConfig =
    R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 258, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})";

// The same recipe on all ranks, over files that the first has written.
Recipe recipe_in(const test::TempDir& dir, Group& group) {
  std::string text;
  if (group.leads()) {
    Recipe recipe = test::tiny_recipe(dir.path());
    recipe.model.path = dir / "deep";
    test::write_made_directory(recipe.model.path, kConfig);
    recipe.train.gradient_accumulation_steps = 4;
    recipe.train.eval_every = 3;
    recipe.train.threads = 1;
    recipe.train.device = "cpu";
    text = write_recipe(recipe);
  }
  return parse_recipe(group.broadcast(text), "recipe.yaml", dir.path(), {});
}

void train(Recipe recipe, const std::string& run, const char* place = nullptr) {
  recipe.output.dir = run;
  if (place != nullptr) recipe.model.device_map = {{"", place}};
  const std::atomic<bool> stop = false;
  finetune(recipe, stop);
}

// As a launcher would have started these ranks.
void train_on(Group& group, const Recipe& recipe, const std::string& run) {
  const std::string port =
      group.broadcast(group.leads() ? std::to_string(test::free_port()) : std::string());
  setenv("RANK", std::to_string(group.rank()).c_str(), 1);
  setenv("WORLD_SIZE", std::to_string(group.size()).c_str(), 1);
  setenv("MASTER_ADDR", "127.0.0.1", 1);
  setenv("MASTER_PORT", port.c_str(), 1);
  train(recipe, run, "ranks");
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) unsetenv(name);
}

std::string adapter(const std::string& run) {
  return test::read_file(run + "/adapter/adapter_model.safetensors");
}

class ShardedRun : public testing::TestWithParam<int> {
 protected:
  void on_ranks(const std::function<void(Group&)>& body) {
    const int size = GetParam();
    EXPECT_EQ(test::run_ranks(size, body), std::vector<int>(static_cast<size_t>(size), 0));
  }
  const test::TempDir dir_;
};

TEST_P(ShardedRun, EndsWithTheAdapterOfOneRankWithTheWholeBase) {
  on_ranks([this](Group& group) {
    Recipe recipe = recipe_in(dir_, group);
    const std::string whole = dir_ / "whole", sharded = dir_ / "sharded";
    if (group.leads()) train(recipe, whole);
    for (const char* recompute : {"true", "false"}) {
      recipe.train.gradient_checkpointing = recompute;
      const std::string run = sharded + recompute;
      train_on(group, recipe, run);
      if (group.leads()) {
        EXPECT_EQ(adapter(run), adapter(whole)) << recompute;
      }
    }
    if (!group.leads()) return;
    // Whoever opens the run by itself has all of the base.
    ModelChoice choice;
    choice.run_dir = sharded + "true";
    const TrainedModel trained = open_model(choice);
    EXPECT_EQ(trained.base.model->offload, nullptr);
    EXPECT_FALSE(trained.base.model->placement.elsewhere());
  });
}

TEST_P(ShardedRun, GoesOnFromACheckpointWithDora) {
  on_ranks([this](Group& group) {
    Recipe recipe = recipe_in(dir_, group);
    recipe.lora.use_dora = true;
    recipe.train.on_extend = "rescale";
    const std::string whole = dir_ / "whole", sharded = dir_ / "sharded";
    for (const int64_t steps : {3, 6}) {
      recipe.train.max_steps = steps;
      if (group.leads()) train(recipe, whole);
      train_on(group, recipe, sharded);
    }
    if (group.leads()) {
      EXPECT_EQ(adapter(sharded), adapter(whole));
    }
  });
}

TEST_P(ShardedRun, GoesOnWhereTheFirstRankAloneHasTheRun) {
  on_ranks([this](Group& group) {
    Recipe recipe = recipe_in(dir_, group);
    recipe.train.on_extend = "rescale";
    // Each rank has a place of its own for "run".
    const std::string own = dir_ / ("rank-" + std::to_string(group.rank()));
    std::filesystem::create_directory(own);
    std::filesystem::current_path(own);
    for (const int64_t steps : {3, 6}) {
      recipe.train.max_steps = steps;
      if (group.leads()) train(recipe, dir_ / "whole");
      train_on(group, recipe, "run");
    }
    if (group.leads()) {
      EXPECT_EQ(adapter("run"), adapter(dir_ / "whole"));
    } else {
      EXPECT_FALSE(std::filesystem::exists("run"));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, ShardedRun, testing::Values(2, 4));

TEST(ShardedRunOfRanks, WithAnotherBaseOnOneOfThemIsRefused) {
  const test::TempDir dir;
  const auto codes = test::run_ranks(2, [&dir](Group& group) {
    Recipe recipe = recipe_in(dir, group);
    // Of the same shape, at the same path as far as rank 1 sees.
    if (group.leads()) {
      test::write_made_directory(dir / "other", kConfig);
      const std::string file = dir / "other/model.safetensors";
      std::string bytes = test::read_file(file);
      for (size_t i = 1; i <= 64; ++i) {  // the signs of the last numbers, in bfloat16
        char& byte = bytes[bytes.size() - 2 * i + 1];
        byte = static_cast<char>(byte ^ 0x80);
      }
      dir.write("other/model.safetensors", bytes);
    }
    group.meet();
    const std::string own = dir / ("model-" + std::to_string(group.rank()));
    std::filesystem::create_directory_symlink(group.leads() ? dir / "deep" : dir / "other", own);
    std::filesystem::current_path(own);
    recipe.model.path = ".";
    EXPECT_THAT([&] { train_on(group, recipe, dir / "run"); },
                ThrowsMessage<ConfigError>(HasSubstr("must agree on the base model: rank 1 has")));
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(ShardedRunOfRanks, WhatOneRankWouldDoWithTheBaseIsRefusedBeforeItIsRead) {
  const auto expect = [](const std::vector<std::string>& overrides, const std::string& words) {
    std::vector<std::string> all = {"model.device_map=ranks"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    EXPECT_THAT(
        [&] {
          parse_recipe(
              "model: {path: m}\ndata: {train: [{path: rows.jsonl}]}\ntrain: {max_steps: 1}\n"
              "output: {dir: r}\n",
              "r.yaml", "/base", all);
        },
        ThrowsMessage<ConfigError>(HasSubstr(words)));
  };
  expect({"train.sample_prompts=[hello]"}, "train.sample_prompts: with model.device_map: ranks");
  expect({"output.save_base=true"}, "output.save_base: with model.device_map: ranks");
  expect({"quantization.method=nf4", "lora.init=loftq"}, "lora.init: loftq changes the base");
  expect({"model.device_map={lm_head: rank}"}, "cpu, disk, ranks or the device that computes");
}

}  // namespace
}  // namespace qlora::recipes
