// Whole runs on a tiny model, as `qlora train` makes them.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/device.h"
#include "base/error.h"
#include "io/read_file.h"
#include "recipes/export_model.h"
#include "recipes/qlora_finetune.h"
#include "recipes/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using test::tiny_recipe;

const std::atomic<bool> kNever{false};

std::string adapter_bytes(const std::string& run) {
  return io::read_bytes(run + "/adapter/adapter_model.safetensors");
}

std::string optimizer_bytes(const std::string& run, const std::string& checkpoint) {
  return io::read_bytes(run + "/" + checkpoint + "/optimizer.safetensors");
}

// step -> loss of the training lines.
std::map<int64_t, double> losses(const std::string& run) {
  std::map<int64_t, double> all;
  std::ifstream file(run + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("loss")) all[json["step"]] = json["loss"];
  }
  return all;
}

// The run as a kill would leave it after `checkpoint`, in a directory of its own.
std::string killed_after(const std::string& run, const std::string& checkpoint) {
  const std::string copy = run + "-killed";
  fs::copy(run, copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(copy + "/adapter");
  fs::remove(copy + "/best");
  for (const fs::directory_entry& entry : fs::directory_iterator(copy)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("checkpoint-") && name > checkpoint) fs::remove_all(entry.path());
  }
  return copy;
}

void expect_resume_repeats(const Recipe& recipe) {
  finetune(recipe, kNever);
  Recipe again = recipe;
  again.output.dir = killed_after(recipe.output.dir, "checkpoint-000002");
  finetune(again, kNever);
  EXPECT_EQ(adapter_bytes(recipe.output.dir), adapter_bytes(again.output.dir));
  EXPECT_EQ(optimizer_bytes(recipe.output.dir, "checkpoint-000006"),
            optimizer_bytes(again.output.dir, "checkpoint-000006"));
  EXPECT_EQ(losses(recipe.output.dir), losses(again.output.dir));
}

TEST(WholeRecipe, AKilledPackedRunResumesToTheSameBytes) {
  TempDir dir;
  expect_resume_repeats(tiny_recipe(dir.path()));
}

TEST(WholeRecipe, AKilledUnpackedRunWithRecomputationResumesToTheSameBytes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.data.packing = false;
  recipe.train.micro_batch_size = 3;
  recipe.train.gradient_checkpointing = "true";
  expect_resume_repeats(recipe);
}

TEST(WholeRecipe, AKilledRunWithRoundedMastersAndTrainedEmbeddingsResumesToTheSameBytes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.lora.modules_to_save = {"embed_tokens", "norm"};
  recipe.lora.ensure_weight_tying = true;
  recipe.lora.dtype = "bfloat16";
  recipe.optim.stochastic_rounding = true;
  expect_resume_repeats(recipe);
}

TEST(WholeRecipe, TrainedTokensGiveAnAdapterThatExportsAndGoesOn) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.lora.trainable_tokens = {"a", "e"};
  finetune(recipe, kNever);
  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  choice.device = "cpu";
  TrainedModel trained = open_model(choice);
  EXPECT_EQ(trained.adapters->embeddings().embedding_ids.size(), 2u);
  export_model(trained, {.format = "merged", .output = dir / "merged"});
  export_model(trained, {.format = "adapter", .output = dir / "adapter"});
  Recipe further = recipe;
  further.lora.trainable_tokens.clear();
  further.lora.from_adapter = dir / "adapter";
  further.output.dir += "-further";
  finetune(further, kNever);
  EXPECT_NE(adapter_bytes(recipe.output.dir), adapter_bytes(further.output.dir));
  recipe.lora.trainable_tokens = {"no such token"};
  EXPECT_THROW(finetune(recipe, kNever), ConfigError);
}

TEST(WholeRecipe, EmbeddingsThatPartedExportAsTwo) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.lora.modules_to_save = {"lm_head"};
  finetune(recipe, kNever);
  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  choice.device = "cpu";
  TrainedModel trained = open_model(choice);
  export_model(trained, {.format = "merged", .output = dir / "merged"});
  const auto config = nlohmann::json::parse(io::read_bytes(dir / "merged/config.json"));
  EXPECT_FALSE(config.at("tie_word_embeddings"));
}

TEST(WholeRecipe, EvaluationsLeaveNoTraceInTheRun) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.eval_every = 1;
  finetune(recipe, kNever);
  Recipe without = recipe;
  without.data.eval.clear();
  without.train.eval_every = 0;
  without.output.dir += "-without";
  finetune(without, kNever);
  EXPECT_EQ(adapter_bytes(recipe.output.dir), adapter_bytes(without.output.dir));
  EXPECT_EQ(losses(recipe.output.dir), losses(without.output.dir));
}

TEST(WholeRecipe, TheModelLearns) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 30;
  finetune(recipe, kNever);
  const auto all = losses(recipe.output.dir);
  EXPECT_LT(all.at(30), 0.8 * all.at(1));
}

TEST(WholeRecipe, AStopSavesAndTheNextStartGoesOnToTheSameBytes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  finetune(recipe, kNever);
  Recipe stopped = recipe;
  stopped.output.dir += "-stopped";
  const std::atomic<bool> at_once{true};
  EXPECT_EQ(finetune(stopped, at_once), trainer::Outcome::kInterrupted);
  EXPECT_FALSE(fs::exists(stopped.output.dir + "/adapter"));
  EXPECT_EQ(finetune(stopped, kNever), trainer::Outcome::kFinished);
  EXPECT_EQ(adapter_bytes(recipe.output.dir), adapter_bytes(stopped.output.dir));
}

TEST(WholeRecipe, ARunOfAnotherRecipeIsRefusedByTheNameOfTheKey) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 2;
  finetune(recipe, kNever);
  recipe.optim.lr = 1e-4;
  try {
    finetune(recipe, kNever);
    FAIL() << "was not refused";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("optim.lr: 0.005 -> 0.0001"), std::string::npos)
        << error.what();
  }
  recipe.output.overwrite = true;
  EXPECT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished);
}

TEST(WholeRecipe, OtherRowsOrAnotherBaseAreRefusedOnResume) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  finetune(recipe, kNever);
  Recipe changed = recipe;
  changed.output.dir = killed_after(recipe.output.dir, "checkpoint-000002");
  test::write_tiny_rows(dir / "rows.jsonl", 24);
  EXPECT_THROW(finetune(changed, kNever), ConfigError);
  test::write_tiny_rows(dir / "rows.jsonl", 23);
  std::string weights = io::read_bytes(dir / "model/model.safetensors");
  weights[weights.size() - 1] ^= 1;
  std::ofstream(dir / "model/model.safetensors", std::ios::binary) << weights;
  EXPECT_THROW(finetune(changed, kNever), ConfigError);
}

TEST(WholeRecipe, ALongerRunAsksWhatTheLearningRateDoes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  finetune(recipe, kNever);
  recipe.train.max_steps = 8;
  EXPECT_THROW(finetune(recipe, kNever), ConfigError);
  recipe.train.on_extend = "rescale";
  EXPECT_EQ(finetune(recipe, kNever), trainer::Outcome::kFinished);
  EXPECT_EQ(losses(recipe.output.dir).size(), 8u);
}

TEST(WholeRecipe, ADivergedRunKeepsItsLastCheckpointAndIsNoSuccess) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 60;
  recipe.train.save_every = 1;
  recipe.optim.lr = 1e30;
  recipe.optim.schedule = "constant";
  EXPECT_THROW(finetune(recipe, kNever), DivergenceError);
  EXPECT_FALSE(fs::exists(recipe.output.dir + "/adapter"));
  EXPECT_TRUE(fs::exists(recipe.output.dir + "/checkpoint-000001"));
}

TEST(WholeRecipe, ARunWritesTheRecipeItRan) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 1;
  finetune(recipe, kNever);
  const Recipe written = read_recipe(recipe.output.dir + "/recipe.resolved.yaml");
  EXPECT_EQ(write_recipe(written), write_recipe(recipe));
}

TEST(WholeRecipe, BothExportsAreTheModelThatWasTrained) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.compute_dtype = "float32";
  finetune(recipe, kNever);
  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  choice.threads = 2;
  TrainedModel trained = open_model(choice);
  const auto adapter = export_model(trained, {"adapter", dir / "adapter", "bfloat16"});
  EXPECT_EQ(adapter.largest_difference, 0.0);
  const auto exact = export_model(trained, {"merged", dir / "merged32", "float32"});
  EXPECT_LT(exact.largest_difference, 1e-4);
  const auto rounded = export_model(trained, {"merged", dir / "merged", "bfloat16"});
  EXPECT_LT(rounded.kl_mean, 1e-3);
  EXPECT_TRUE(fs::exists(dir / "merged/verification.json"));
  EXPECT_THROW(export_model(trained, {"merged", dir / "merged", "bfloat16"}), ConfigError);
}

TEST(WholeRecipe, AnAdapterGoesOnInAnotherRunAndIsRefusedOnAnotherBase) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  finetune(recipe, kNever);
  Recipe next = recipe;
  next.lora.from_adapter = recipe.output.dir + "/adapter";
  next.output.dir += "-next";
  finetune(next, kNever);
  EXPECT_LT(losses(next.output.dir).at(1), losses(recipe.output.dir).at(1));
  next.quantization.method = "none";
  next.output.dir += "-other";
  EXPECT_THROW(finetune(next, kNever), ConfigError);
}

TEST(WholeRecipeGpu, TheWholeRunOnTheGpu) {
  if (!cuda_available()) GTEST_SKIP() << "needs a GPU";
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.device = "cuda";
  recipe.quantization.block_size = 64;
  expect_resume_repeats(recipe);
}

}  // namespace
}  // namespace qlora::recipes
