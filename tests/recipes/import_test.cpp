// What an import tells of the keys that cannot be taken over as they are, and what it writes
// itself.
#include "recipes/import/import_recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "recipes/fields/later_keys.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::keys_with;
using test::outcome_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Import, DefaultsOfTheToolThatAreOthersHereAreWritten) {
  const ImportedRecipe recipe = imported(
      "base_model: m\nadapter: lora\nlearning_rate: 1e-4\n"
      "datasets: [{path: r.jsonl, type: completion}]\n");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_THAT(recipe.defaults,
              ElementsAre("data.sequence_length: 512", "data.packing: false",
                          "data.on_overlength: drop", "optim.name: adamw",
                          "optim.warmup_ratio: 0.03", "train.epochs: 1", "output.dir: model-out"));
  EXPECT_THAT(recipe.text, HasSubstr("packing: false  # default of Axolotl"));
}

TEST(Import, DataSetsOfTheHubAreToBeDownloaded) {
  const ImportedRecipe recipe = imported(
      "base_model: m\nadapter: qlora\nload_in_4bit: true\nlearning_rate: 1e-4\n"
      "datasets: [{path: org/instructions, type: alpaca}]\n");
  EXPECT_THAT(recipe.missing,
              ElementsAre(HasSubstr("org/instructions is a data set of the Hub; download it")));
  EXPECT_THAT(recipe.text, HasSubstr("  #   - {path: org/instructions, format: alpaca, fields: "
                                     "{history: none, system: none}}\n"));
  EXPECT_THAT(recipe.text, HasSubstr("  prompt_style: alpaca  # datasets\n"));
}

TEST(Import, AValueThatIsNotTakenHereIsRefusedWithOurReason) {
  const ImportedRecipe recipe = imported(
      "base_model: m\nadapter: lora\noptimizer: adafactor\nlr_scheduler: rex\n"
      "val_set_size: 100\nevals_per_epoch: 4\nlora_dropout: 1.5\n"
      "datasets: [{path: r.jsonl, type: alpaca}]\n");
  EXPECT_THAT(
      keys_with(recipe, Fate::kRefused),
      ElementsAre("optimizer", "lr_scheduler", "val_set_size", "evals_per_epoch", "lora_dropout"));
  EXPECT_EQ(outcome_of(recipe, "optimizer")->reason, later_value("optim.name", "adafactor"));
  EXPECT_THAT(outcome_of(recipe, "lr_scheduler")->reason, HasSubstr("optim.schedule must be"));
  EXPECT_THAT(outcome_of(recipe, "lora_dropout")->reason, HasSubstr("lora.dropout must be"));
  EXPECT_THAT(recipe.missing, IsEmpty());  // what is left is a recipe
}

TEST(Import, SwitchesThatAreOffAreNotRefused) {
  const ImportedRecipe recipe = imported(
      "model_name_or_path: m\ndataset_name: r.jsonl\nuse_peft: true\ndeepspeed: null\n"
      "fsdp: []\nfsdp_config: {min_num_params: 0, xla: false}\nneftune_noise_alpha: 0\n"
      "push_to_hub: false\nhub_strategy: every_save\nmax_steps: -1\nwarmup_ratio: 0.0\n");
  EXPECT_THAT(keys_with(recipe, Fate::kRefused), IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kMapped), ElementsAre("model_name_or_path", "dataset_name"));
}

TEST(Import, KeysThatContradictEachOtherAreNotBothTaken) {
  const ImportedRecipe recipe = imported(
      "base_model: m\nload_in_4bit: true\nload_in_8bit: true\nadapter: lora\n"
      "datasets: [{path: r.jsonl, type: alpaca}]\n");
  ASSERT_NE(outcome_of(recipe, "load_in_8bit"), nullptr);
  EXPECT_EQ(outcome_of(recipe, "load_in_8bit")->fate, Fate::kRefused);
  EXPECT_THAT(outcome_of(recipe, "load_in_8bit")->reason,
              HasSubstr("load_in_4bit says that quantization.method is nf4, this one int8"));
}

TEST(Import, BlocksInFloat32OnTheCpuAreTakenOverWithEightBits) {
  const std::string key = "bnb_config_kwargs.llm_int8_enable_fp32_cpu_offload";
  const std::string file =
      "base_model: m\nadapter: lora\ndevice_map: {model.layers.0: cpu}\n"
      "datasets: [{path: r.jsonl, type: alpaca}]\nmax_steps: 1\n"
      "bnb_config_kwargs: {llm_int8_enable_fp32_cpu_offload: true}\n";
  const ImportedRecipe eight = imported(file + "load_in_8bit: true\n");
  ASSERT_NE(outcome_of(eight, key), nullptr);
  EXPECT_EQ(outcome_of(eight, key)->here, "quantization.fp32_cpu_offload");
  EXPECT_THAT(eight.text, HasSubstr("fp32_cpu_offload: true"));
  const ImportedRecipe four = imported(file + "load_in_4bit: true\n");
  ASSERT_NE(outcome_of(four, key), nullptr);
  EXPECT_EQ(outcome_of(four, key)->fate, Fate::kWithoutEffect);
}

TEST(Import, AnUnknownKeyIsToldTheNearest) {
  const ImportedRecipe recipe =
      imported("base_model: m\nadapter: lora\nlora_rr: 8\nsomething_else_entirely: 1\n");
  EXPECT_THAT(keys_with(recipe, Fate::kUnknown), ElementsAre("lora_rr", "something_else_entirely"));
  EXPECT_THAT(outcome_of(recipe, "lora_rr")->reason, HasSubstr("did you mean 'lora_r'?"));
  EXPECT_THAT(recipe.text, HasSubstr("# Not taken over: something_else_entirely (we know no such "
                                     "key of Axolotl)"));
}

TEST(Import, PreferencesAreLearntByTheObjectiveOfTheirTool) {
  const std::string axolotl = imported(
                                  "base_model: m\nadapter: lora\nrl: ipo\nrl_beta: 0.2\n"
                                  "datasets: [{path: p.jsonl, type: chatml.ultra}]\n")
                                  .text;
  const Recipe dpo = parse_recipe(axolotl, "r.yaml", "/base");
  EXPECT_EQ(dpo.train.objective, "dpo");
  EXPECT_EQ(dpo.train.loss_type, "ipo");
  EXPECT_EQ(dpo.train.beta, 0.2);
  EXPECT_EQ(dpo.data.train[0].format, "preference");

  const ImportedRecipe trl =
      imported("model_name_or_path: m\ndataset_name: p.jsonl\nuse_peft: true\nbeta: 0.3\n");
  const Recipe compared = parse_recipe(trl.text, "r.yaml", "/base");
  EXPECT_EQ(compared.train.objective, "dpo");
  EXPECT_EQ(compared.train.beta, 0.3);
  EXPECT_EQ(compared.optim.lr, 1e-6);

  const ImportedRecipe odds = imported(
      "model_name_or_path: m\nstage: dpo\npref_loss: orpo\npref_beta: 0.1\ndataset: x\n"
      "finetuning_type: lora\n");
  EXPECT_THAT(odds.text, HasSubstr("  objective: orpo  # stage, pref_loss\n"));
}

std::string refusal(const std::string& text, const std::string& from = "") {
  try {
    imported(text, from);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Import, WhatIsNoFileOfAToolIsRefused) {
  EXPECT_THAT(refusal("model: {path: m}\ndata: {train: [{path: r}]}\n"),
              HasSubstr("sections of a recipe of this program"));
  EXPECT_THAT(refusal("abc: 1\n"), HasSubstr("--from says which one wrote it: trl, axolotl"));
  EXPECT_THAT(refusal("[1, 2]\n"), HasSubstr("must be a map"));
  EXPECT_THAT(refusal("lora_r: 1\nlora_r: 2\n"), HasSubstr("duplicate key 'lora_r'"));
  EXPECT_THAT(refusal("lora_r: 1\n", "litgpt"), HasSubstr("--from must be one of"));
}

}  // namespace
}  // namespace qlora::recipes
