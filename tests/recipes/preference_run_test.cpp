// Whole runs on pairs of answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/read_file.h"
#include "recipes/qlora_finetune.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/across_sections.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using testing::HasSubstr;

const std::atomic<bool> kNever{false};

Recipe pair_recipe(const TempDir& dir, const std::string& objective) {
  Recipe recipe = test::tiny_recipe(dir.path());
  test::write_tiny_pairs(dir / "pairs.jsonl", 17);
  test::write_tiny_pairs(dir / "held.jsonl", 4);
  recipe.data.train = {{dir / "pairs.jsonl", "preference", {}}};
  recipe.data.eval = {{dir / "held.jsonl", "preference", {}}};
  recipe.train.objective = objective;
  recipe.train.eval_every = 3;
  recipe.train.save_total_limit = 10;
  return recipe;
}

// step -> one number of metrics.jsonl.
std::map<int64_t, double> metric(const std::string& run, const std::string& key) {
  std::map<int64_t, double> all;
  std::ifstream file(run + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(key)) all[json["step"]] = json[key];
  }
  return all;
}

// The run as a kill would leave it after step 2, in a directory of its own.
std::string killed_run(const std::string& run) {
  const std::string copy = run + "-killed";
  fs::remove_all(copy);
  fs::copy(run, copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(copy + "/adapter");
  fs::remove(copy + "/best");
  for (const fs::directory_entry& entry : fs::directory_iterator(copy)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("checkpoint-") && name > "checkpoint-000002") fs::remove_all(entry.path());
  }
  return copy;
}

void expect_same_end(const std::string& run, const std::string& other) {
  for (const char* file :
       {"/adapter/adapter_model.safetensors", "/checkpoint-000006/optimizer.safetensors"})
    EXPECT_EQ(io::read_bytes(run + file), io::read_bytes(other + file)) << file;
  for (const char* key :
       {"loss", "rewards_margin", "logps_rejected", "eval_loss", "eval_rewards_accuracy"}) {
    EXPECT_FALSE(metric(run, key).empty()) << key;
    EXPECT_EQ(metric(run, key), metric(other, key)) << key;
  }
}

TEST(PreferenceRun, AKilledDpoRunResumesToTheSameBytesWithItsReferenceOrWithout) {
  const TempDir dir;
  const Recipe recipe = pair_recipe(dir, "dpo");
  EXPECT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished);
  EXPECT_TRUE(fs::exists(recipe.output.dir + "/reference.json"));
  // Before the first step the model is its own reference.
  EXPECT_NEAR(metric(recipe.output.dir, "loss").at(1), std::log(2.0), 0.02);
  Recipe again = recipe;
  again.output.dir = killed_run(recipe.output.dir);
  finetune(again, kNever);
  expect_same_end(recipe.output.dir, again.output.dir);

  killed_run(recipe.output.dir);
  const std::string reference = again.output.dir + "/reference.json";
  const std::string written = io::read_bytes(reference);
  fs::remove(reference);
  finetune(again, kNever);
  expect_same_end(recipe.output.dir, again.output.dir);
  EXPECT_EQ(io::read_bytes(reference), written);
}

TEST(PreferenceRun, AKilledUnpackedOrpoRunResumesToTheSameBytes) {
  const TempDir dir;
  Recipe recipe = pair_recipe(dir, "orpo");
  recipe.data.packing = false;
  recipe.data.train_on = data::TrainOn::kAll;
  recipe.train.gradient_checkpointing = "true";
  finetune(recipe, kNever);
  EXPECT_FALSE(fs::exists(recipe.output.dir + "/reference.json"));
  EXPECT_EQ(metric(recipe.output.dir, "nll").size(), 6u);
  Recipe again = recipe;
  again.output.dir = killed_run(recipe.output.dir);
  finetune(again, kNever);
  expect_same_end(recipe.output.dir, again.output.dir);
}

TEST(PreferenceRun, ARunFromAnAdapterHasThatAdapterAsItsReference) {
  const TempDir dir;
  Recipe recipe = pair_recipe(dir, "dpo");
  recipe.lora.dropout = 0;  // of the adapter that is gone on from, too
  recipe.train.max_steps = 30;
  finetune(recipe, kNever);
  EXPECT_LT(metric(recipe.output.dir, "eval_loss").at(30), std::log(2.0) - 0.05);
  Recipe next = recipe;
  next.lora.from_adapter = recipe.output.dir + "/adapter";
  next.output.dir += "-next";
  next.train.max_steps = 1;
  finetune(next, kNever);
  EXPECT_NEAR(metric(next.output.dir, "loss").at(1), std::log(2.0), 0.02);
}

TEST(PreferenceRun, WhereTheStartIsNotKnownAnyMoreAMissingReferenceIsAnError) {
  const TempDir dir;
  Recipe recipe = pair_recipe(dir, "dpo");
  recipe.lora.init = "loftq";
  finetune(recipe, kNever);
  Recipe again = recipe;
  again.output.dir = killed_run(recipe.output.dir);
  finetune(again, kNever);
  EXPECT_EQ(metric(recipe.output.dir, "loss"), metric(again.output.dir, "loss"));
  killed_run(recipe.output.dir);
  fs::remove(again.output.dir + "/reference.json");
  EXPECT_THROW(finetune(again, kNever), ConfigError);
}

TEST(PreferenceRun, ObjectiveAndRowsMustFitTogether) {
  const TempDir dir;
  const auto refusal = [](const Recipe& recipe) {
    try {
      recipe.train.validate();
      test::require_sections_agree(recipe);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  Recipe recipe = pair_recipe(dir, "dpo");
  EXPECT_EQ(refusal(recipe), "");
  recipe.data.train_on = data::TrainOn::kAll;
  EXPECT_THAT(refusal(recipe), HasSubstr("data.train_on"));
  recipe.train.objective = "orpo";
  EXPECT_EQ(refusal(recipe), "");
  recipe.train.loss_type = "ipo";
  EXPECT_THAT(refusal(recipe), HasSubstr("train.loss_type belongs to train.objective dpo"));
  recipe.train.loss_type = "sigmoid";
  recipe.train.objective = "sft";
  EXPECT_THAT(refusal(recipe), HasSubstr("rows of format preference"));
  recipe = pair_recipe(dir, "dpo");
  recipe.train.loss_type = "ipo";
  recipe.train.label_smoothing = 0.1;
  EXPECT_THAT(refusal(recipe), HasSubstr("train.label_smoothing belongs to"));
  recipe.train.label_smoothing = 0;
  recipe.train.beta = 0;
  EXPECT_THAT(refusal(recipe), HasSubstr("train.beta must be above 0"));
  recipe.train.beta = 0.1;
  recipe.data.train[0].format = "chat";
  EXPECT_THAT(refusal(recipe), HasSubstr("data.train[0].format is chat"));
}

TEST(PreferenceRun, ItsKeysAreReadAndWritten) {
  const Recipe recipe = parse_recipe(
      "model: {path: m}\n"
      "data: {train: [{path: rows.jsonl, format: preference}]}\n"
      "train: {max_steps: 3, objective: dpo, beta: 0.2, label_smoothing: 0.05}\n"
      "output: {dir: run}\n",
      "r.yaml", "/base", {});
  EXPECT_EQ(recipe.train.objective, "dpo");
  EXPECT_EQ(recipe.train.beta, 0.2);
  EXPECT_EQ(recipe.train.label_smoothing, 0.05);
  EXPECT_THAT(write_recipe(recipe), HasSubstr("objective: dpo"));
}

}  // namespace
}  // namespace qlora::recipes
