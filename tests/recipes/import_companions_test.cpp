// Keys that need another one beside them: whether that stands before or behind them in the file, or
// nowhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::fate_of;
using test::imported;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

struct Case {
  std::string tool;
  std::string file;               // what is needed for a recipe
  std::vector<std::string> keys;  // lines that need each other
  std::string needing;            // the key among them that does
  std::string here;
};

const std::string kAxolotl =
    "base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: completion}]\n";
const std::string kPairs =
    "base_model: m\nadapter: lora\nrl: dpo\ndatasets: [{path: r.jsonl, type: chatml.ultra}]\n";
const std::string kTrl = "model_name_or_path: m\nuse_peft: true\ndataset_name: r.jsonl\n";
const std::string kLlamaFactory =
    "model_name_or_path: m\nfinetuning_type: lora\ndataset: d\nmax_steps: 1\n";
const std::string kTorchtune =
    "model: {lora_rank: 8}\ncheckpointer: {checkpoint_dir: m}\nepochs: 1\n";

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"axolotl",
       kAxolotl,
       {"early_stopping_patience: 3", "eval_steps: 20", "val_set_size: 0.1"},
       "early_stopping_patience",
       "train.early_stopping_patience"},
      {"llama-factory",
       kLlamaFactory,
       {"early_stopping_steps: 3", "eval_strategy: steps", "eval_steps: 20", "val_size: 0.1"},
       "early_stopping_steps",
       "train.early_stopping_patience"},
      {"axolotl",
       kAxolotl,
       {"bnb_config_kwargs: {llm_int8_threshold: 5.0}", "load_in_8bit: true"},
       "bnb_config_kwargs.llm_int8_threshold",
       "quantization.threshold"},
      {"axolotl",
       kAxolotl,
       {"bnb_config_kwargs: {llm_int8_enable_fp32_cpu_offload: true}", "load_in_8bit: true",
        "device_map: {model.layers.0: cpu}"},
       "bnb_config_kwargs.llm_int8_enable_fp32_cpu_offload",
       "quantization.fp32_cpu_offload"},
      {"axolotl", kPairs, {"rl_beta: 0.3", "dpo_loss_type: [hinge]"}, "rl_beta", "train.beta"},
      {"axolotl",
       kPairs,
       {"dpo_label_smoothing: 0.1"},
       "dpo_label_smoothing",
       "train.label_smoothing"},
      {"trl",
       kTrl,
       {"label_smoothing: 0.1", "loss_type: [sigmoid]", "beta: 0.2"},
       "label_smoothing",
       "train.label_smoothing"},
      {"llama-factory",
       kLlamaFactory,
       {"pref_beta: 0.2", "pref_loss: hinge", "stage: dpo"},
       "pref_loss",
       "train.loss_type"},
      {"torchtune",
       kTorchtune,
       {"loss: {beta: 0.2, _component_: torchtune.rlhf.loss.DPOLoss}"},
       "loss.beta",
       "train.beta"},
      {"torchtune",
       kTorchtune,
       {"optimizer: {betas: [0.9, 0.99, 0.999], _component_: bitsandbytes.optim.AdEMAMix}"},
       "optimizer.betas",
       "optim.betas"},
      {"axolotl",
       kAxolotl,
       {"max_memory: {0: 20GiB}", "device_map: auto"},
       "max_memory",
       "model.max_memory"},
      {"axolotl",
       kAxolotl,
       {"adam_beta1: 0.8", "adam_beta2: 0.95", "optimizer: lion_8bit"},
       "adam_beta1",
       "optim.betas"}};
  return all;
}

TEST(ImportCompanions, AKeyIsTakenWhereverTheOtherOneStands) {
  for (const Case& one : cases()) {
    std::vector<std::string> lines = one.keys;
    std::ranges::sort(lines);
    do {
      std::string file = one.file;
      for (const std::string& line : lines) file += line + "\n";
      const ImportedRecipe recipe = imported(file, one.tool);
      EXPECT_EQ(fate_of(recipe, one.needing), one.here) << file;
    } while (std::ranges::next_permutation(lines).found);
  }
}

TEST(ImportCompanions, AKeyWithoutTheOtherOneIsToldOfAndTheRestIsARecipe) {
  const auto without = [](const std::string& file, const std::string& key) {
    const ImportedRecipe recipe = imported(file, "axolotl");
    EXPECT_THAT(recipe.missing, IsEmpty()) << file;
    return fate_of(recipe, key);
  };
  EXPECT_THAT(without(kAxolotl + "early_stopping_patience: 3\nval_set_size: 0.1\n",
                      "early_stopping_patience"),
              StartsWith("refused: train.early_stopping_patience needs train.eval_every"));
  EXPECT_THAT(
      without(kAxolotl + "early_stopping_patience: 3\neval_steps: 20\n", "early_stopping_patience"),
      StartsWith("without effect: there are no rows to evaluate on"));
  EXPECT_THAT(
      without(kAxolotl + "bnb_config_kwargs: {llm_int8_threshold: 5.0}\nload_in_4bit: true\n",
              "bnb_config_kwargs.llm_int8_threshold"),
      StartsWith("without effect: weights are not quantized to 8 bits"));
  EXPECT_THAT(without(kAxolotl + "rl_beta: 0.3\n", "rl_beta"),
              StartsWith("refused: train.beta belongs to train.objective"));
  EXPECT_THAT(
      without(kPairs + "dpo_label_smoothing: 0.1\ndpo_loss_type: [hinge]\n", "dpo_label_smoothing"),
      StartsWith("refused: train.label_smoothing belongs to"));
  EXPECT_THAT(
      without(kAxolotl + "adam_beta1: 0.8\nadam_beta2: 0.9\noptimizer: ademamix\n", "adam_beta1"),
      StartsWith("refused: optim.betas must be 3 numbers for ademamix"));
}

TEST(ImportCompanions, AValueThatIsTakenBackIsNotInTheRecipe) {
  const ImportedRecipe recipe =
      imported(kAxolotl + "early_stopping_patience: 3\nval_set_size: 0.1\n", "axolotl");
  EXPECT_THAT(recipe.text, Not(HasSubstr("  early_stopping_patience:")));
  EXPECT_THAT(recipe.text, HasSubstr("# Not taken over: early_stopping_patience ("));
}

}  // namespace
}  // namespace qlora::recipes
