// Whole runs on a tiny model, as `qlora train` makes them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/device.h"
#include "base/error.h"
#include "io/read_file.h"
#include "quant/tensor_file.h"
#include "recipes/exports/export_model.h"
#include "recipes/qlora_finetune.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/across_sections.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/checkpoint.h"

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

// step -> one number of the training lines.
std::map<int64_t, double> metric(const std::string& run, const char* key) {
  std::map<int64_t, double> all;
  std::ifstream file(run + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(key)) all[json["step"]] = json[key];
  }
  return all;
}
std::map<int64_t, double> losses(const std::string& run) { return metric(run, "loss"); }

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

TEST(WholeRecipe, AKilledRunThatRecomputesOneOfTwoLayersResumesToTheSameBytes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.gradient_checkpointing = "1";
  expect_resume_repeats(recipe);
  // Which layers are recomputed changes no bit.
  Recipe all = recipe;
  all.train.gradient_checkpointing = "true";
  all.output.dir += "-all";
  finetune(all, kNever);
  EXPECT_EQ(adapter_bytes(recipe.output.dir), adapter_bytes(all.output.dir));
  all.train.gradient_checkpointing = "3";
  all.output.dir += "-and-more";
  EXPECT_THROW(finetune(all, kNever), ConfigError);
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

TEST(WholeRecipe, AKilledFloat16RunResumesToTheSameBytes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.compute_dtype = "float16";
  expect_resume_repeats(recipe);
  const auto state = trainer::read_train_state(recipe.output.dir + "/checkpoint-000006");
  // Steps that were left out halved the scale; the others count towards its growth.
  EXPECT_EQ(state.loss_scale.value,
            std::ldexp(65536.0, static_cast<int>(state.optimizer_steps - state.step)));
  EXPECT_GT(state.loss_scale.good_steps, 0);
}

TEST(WholeRecipe, AKilledRunThatFollowsThePlateauResumesToTheSameBytes) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.optim.lr = 1e-9;  // learns nothing: only the first evaluation is a gain
  recipe.optim.schedule = "reduce_on_plateau";
  recipe.optim.plateau_factor = 0.5;
  recipe.optim.plateau_patience = 1;
  recipe.train.eval_every = 1;
  expect_resume_repeats(recipe);
  const std::map<int64_t, double> expected = {{1, 1e-9},  {2, 1e-9},  {3, 1e-9},
                                              {4, 5e-10}, {5, 5e-10}, {6, 2.5e-10}};
  EXPECT_EQ(metric(recipe.output.dir, "learning_rate"), expected);
  EXPECT_EQ(metric(recipe.output.dir + "-killed", "learning_rate"), expected);
}

TEST(WholeRecipe, ReduceOnPlateauBeginsToCountWhereTheWarmupIsOver) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.optim.lr = 1e-9;
  recipe.optim.schedule = "reduce_on_plateau";
  recipe.optim.warmup_steps = 3;
  recipe.optim.plateau_factor = 0.5;
  recipe.optim.plateau_patience = 0;
  recipe.train.eval_every = 1;
  finetune(recipe, kNever);
  const auto rates = metric(recipe.output.dir, "learning_rate");
  const double expected[] = {0, 1e-9 / 3, 2e-9 / 3, 1e-9, 5e-10, 2.5e-10};
  ASSERT_EQ(rates.size(), std::size(expected));
  for (size_t i = 0; i < std::size(expected); ++i)
    EXPECT_DOUBLE_EQ(rates.at(static_cast<int64_t>(i) + 1), expected[i]) << i;
}

TEST(WholeRecipe, ReduceOnPlateauNeedsEvaluations) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.optim.schedule = "reduce_on_plateau";
  recipe.train.eval_every = 0;
  EXPECT_THROW(test::require_sections_agree(recipe), ConfigError);
  recipe.train.eval_every = 1;
  EXPECT_NO_THROW(test::require_sections_agree(recipe));
  recipe.data.eval.clear();
  EXPECT_THROW(test::require_sections_agree(recipe), ConfigError);
}

TEST(WholeRecipe, DecayByPatternReachesTheTensorsItNames) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 1;
  recipe.optim.schedule = "constant";
  finetune(recipe, kNever);
  Recipe decayed = recipe;
  decayed.optim.weight_decay_pattern = {{"q_proj.lora_A", 0.5}};
  decayed.output.dir += "-decayed";
  finetune(decayed, kNever);
  const auto plain = quant::read_tensors(recipe.output.dir + "/adapter/adapter_model.safetensors");
  const auto other = quant::read_tensors(decayed.output.dir + "/adapter/adapter_model.safetensors");
  ASSERT_EQ(plain.size(), other.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    // B is zero, so the first step's gradient towards A is too: only decay, 1 - lr 0.5, moves it.
    const bool named = plain[i].first.find("q_proj.lora_A") != std::string::npos;
    const at::Tensor expected = plain[i].second * (named ? 1 - 0.5 * recipe.optim.lr : 1.0);
    EXPECT_TRUE(at::allclose(other[i].second, expected, 1e-6, 0)) << plain[i].first;
  }
}

TEST(WholeRecipe, AnAdapterOfAnUpcastRunFitsThePlainBase) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  recipe.model.upcast = "all";
  expect_resume_repeats(recipe);
  ModelChoice choice;
  choice.model = recipe.model.path;
  choice.adapter = recipe.output.dir + "/adapter";
  choice.threads = 2;
  EXPECT_NO_THROW(open_model(choice));
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

TEST(WholeRecipe, AStopBeforeTheFirstStepLeavesNothingAndTheNextStartBeginsAnew) {
  TempDir dir;
  Recipe recipe = tiny_recipe(dir.path());
  finetune(recipe, kNever);
  Recipe stopped = recipe;
  stopped.output.dir += "-stopped";
  const std::atomic<bool> at_once{true};
  EXPECT_THROW(finetune(stopped, at_once), Stopped);
  for (const auto& entry : fs::directory_iterator(stopped.output.dir))
    EXPECT_EQ(entry.path().filename(), "log.txt");
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
  recipe.model.dtype = "bfloat16";  // what auto came to
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
