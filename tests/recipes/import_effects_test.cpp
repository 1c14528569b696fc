// Keys that look as if they had no effect here and have one, and such that have none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::fate_of;
using test::imported;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

const std::string kTrl = "model_name_or_path: m\nuse_peft: true\ndataset_name: r.jsonl\n";
const std::string kAxolotl =
    "base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: completion}]\n";
const std::string kLlamaFactory =
    "model_name_or_path: m\nfinetuning_type: lora\ndataset: d\nmax_steps: 1\n";

std::string compute_dtype(const ImportedRecipe& recipe) {
  EXPECT_THAT(recipe.missing, IsEmpty());
  return parse_recipe(recipe.text, "r.yaml", "/base").train.compute_dtype;
}

TEST(ImportEffects, TheBestModelIsNotTheOneInTheAdaptersDirectory) {
  for (const auto& [tool, file] :
       {std::pair("trl", kTrl), {"axolotl", kAxolotl}, {"llama-factory", kLlamaFactory}}) {
    EXPECT_THAT(
        fate_of(imported(file + "load_best_model_at_end: true\n", tool), "load_best_model_at_end"),
        AllOf(StartsWith("refused: "), HasSubstr("--checkpoint best")));
    EXPECT_THAT(
        fate_of(imported(file + "load_best_model_at_end: false\n", tool), "load_best_model_at_end"),
        StartsWith("without effect: it is off"));
  }
}

TEST(ImportEffects, NeitherBf16NorFp16IsFloat32) {
  EXPECT_EQ(compute_dtype(imported(kTrl + "bf16: false\n", "trl")), "float32");
  EXPECT_EQ(compute_dtype(imported(kTrl + "bf16: false\nfp16: false\ndtype: float32\n", "trl")),
            "float32");
  EXPECT_EQ(compute_dtype(imported(kAxolotl + "bf16: false\nfp16:\n", "axolotl")), "float32");
  for (const char* other : {"bf16: true\n", "bf16: false\nfp16: true\n", "fp16: false\n",
                            "bf16: false\ndtype: bfloat16\n", "fp16: true\nbf16: false\n"})
    EXPECT_EQ(compute_dtype(imported(kTrl + other, "trl")), "auto") << other;
  EXPECT_EQ(compute_dtype(imported(kAxolotl + "bf16: false\nload_in_8bit: false\n", "axolotl")),
            "float32");
  for (const char* other :
       {"bf16: auto\n", "bf16: false\nbfloat16: true\n", "bf16: false\nload_in_8bit: true\n"})
    EXPECT_EQ(compute_dtype(imported(kAxolotl + other, "axolotl")), "auto") << other;
}

TEST(ImportEffects, AdaptersBesidePureBf16AreFloat32) {
  const ImportedRecipe adapters = imported(kLlamaFactory + "pure_bf16: true\n", "llama-factory");
  EXPECT_THAT(fate_of(adapters, "pure_bf16"), StartsWith("without effect: PEFT holds adapters"));
  EXPECT_THAT(adapters.warnings, Each(Not(HasSubstr("pure_bf16"))));
  const ImportedRecipe modules = imported(
      kLlamaFactory + "pure_bf16: true\nadditional_target: embed_tokens\n", "llama-factory");
  EXPECT_THAT(modules.warnings, Contains(HasSubstr("lora.dtype: bfloat16")));
}

TEST(ImportEffects, AnEmptySystemPromptOfATypeStandsInOneList) {
  const auto axolotl = [](const std::string& type) {
    return imported("base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: {" + type +
                        ", field_output: a}}]\n",
                    "axolotl");
  };
  const ImportedRecipe empty = axolotl("system_prompt: \"\", field_instruction: q");
  EXPECT_THAT(fate_of(empty, "datasets[].type.system_prompt"), StartsWith("without effect"));
  EXPECT_THAT(empty.missing, IsEmpty());
  EXPECT_THAT(empty.warnings, Contains(HasSubstr("a type with fields of its own and no format")));
  const ImportedRecipe words = axolotl("format: \"[INST] {instruction} [/INST]\"");
  EXPECT_THAT(fate_of(words, "datasets[].type.format"), StartsWith("refused"));
  EXPECT_THAT(words.missing, Contains(HasSubstr("format of its type words the prompt")));
  EXPECT_THAT(words.warnings, Each(Not(HasSubstr("no format"))));
}

TEST(ImportEffects, AlpacasWordsInAMixtureAreToldOf) {
  const ImportedRecipe both = imported(
      "base_model: m\nadapter: lora\ndatasets: [{path: a.jsonl, type: alpaca},\n"
      " {path: b.jsonl, type: {field_instruction: q, field_output: a}}]\n",
      "axolotl");
  EXPECT_THAT(both.warnings, Contains(HasSubstr("also words the rows of a type with fields")));
}

TEST(ImportEffects, RolesUnderTheNamesThatAreReadHereAreNoAlarm) {
  const auto roles = [](const std::string& map) {
    return fate_of(imported("base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: "
                            "chat_template, roles: " +
                                map + "}]\n",
                            "axolotl"),
                   "datasets[].roles");
  };
  for (const char* known :
       {"{user: [human], assistant: [gpt]}", "{user: [human, user], assistant: [gpt, assistant]}",
        "{user: [user], assistant: [model], system: [system], tool: [tool]}", "{}"})
    EXPECT_THAT(roles(known), StartsWith("without effect: ")) << known;
  for (const char* other : {"{user: [customer], assistant: [gpt]}",
                            "{user: [gpt], assistant: [human]}", "{narrator: [narrator]}", "human"})
    EXPECT_THAT(roles(other), StartsWith("refused: roles are called user or human")) << other;
}

TEST(ImportEffects, WhatHoldsWithoutTheKeyIsNoAlarm) {
  const auto entry = [](const std::string& key, const std::string& value) {
    return fate_of(imported("base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: "
                            "completion, " +
                                key + ": " + value + "}]\n",
                            "axolotl"),
                   "datasets[]." + key);
  };
  EXPECT_THAT(entry("revision", "main"), StartsWith("without effect: main is taken in any case"));
  EXPECT_THAT(entry("revision", "v2"), StartsWith("refused: "));
  EXPECT_THAT(entry("name", "default"), StartsWith("without effect: "));
  EXPECT_THAT(entry("name", "en"), StartsWith("refused: "));
  EXPECT_THAT(fate_of(imported("model_name_or_path: ./m\nuse_peft: true\ndataset_name: r.jsonl\n"
                               "model_revision: main\n",
                               "trl"),
                      "model_revision"),
              StartsWith("without effect: main is what is taken"));
  EXPECT_THAT(imported(kTrl + "model_revision: main\n", "trl").text, HasSubstr("  path: m  #"));
}

TEST(ImportEffects, WhatIsDoneBesideTheTrainingIsNoAlarm) {
  for (const char* key : {"push_to_hub", "do_predict", "generate_during_eval"})
    EXPECT_THAT(fate_of(imported(kTrl + key + ": true\n", "trl"), key),
                StartsWith("without effect: "))
        << key;
  for (const char* key : {"push_dataset_to_hub", "dpo_generate_during_eval"})
    EXPECT_THAT(fate_of(imported(kAxolotl + key + ": true\n", "axolotl"), key),
                StartsWith("without effect: "))
        << key;
}

TEST(ImportEffects, ShiftedAttentionIsNotThatOfTheModel) {
  EXPECT_THAT(fate_of(imported(kAxolotl + "s2_attention: true\n", "axolotl"), "s2_attention"),
              StartsWith("refused: attention is that of the model"));
  EXPECT_THAT(
      fate_of(imported(kLlamaFactory + "shift_attn: true\n", "llama-factory"), "shift_attn"),
      StartsWith("refused: attention is that of the model"));
  EXPECT_THAT(fate_of(imported(kAxolotl + "s2_attention: false\n", "axolotl"), "s2_attention"),
              StartsWith("without effect: it is off"));
}

TEST(ImportEffects, AReasonIsAboutItsKey) {
  struct Reason {
    const char *tool, *key, *reason;
  };
  for (const Reason& one : {Reason{"axolotl", "eval_max_new_tokens", "an evaluation measures"},
                            {"axolotl", "profiler_steps", "train.profile_steps"},
                            {"axolotl", "gc_steps", "memory"},
                            {"axolotl", "fix_untrained_tokens", "weights are those"},
                            {"axolotl", "role_boundaries", "the chat template"},
                            {"axolotl", "max_prompt_len", "data.sequence_length"},
                            {"axolotl", "hf_use_auth_token", "nothing is downloaded"},
                            {"axolotl", "debug", "train.audit"},
                            {"llama-factory", "cache_dir", "nothing is downloaded"},
                            {"llama-factory", "device_map", "model.device_map"},
                            {"llama-factory", "eval_num_beams", "an evaluation measures"},
                            {"llama-factory", "fp8", "train.compute_dtype"},
                            {"llama-factory", "include_tokens_per_second", "metrics.jsonl"},
                            {"llama-factory", "pref_ftx", "train.beta"},
                            {"torchtune", "profiler", "train.profile_steps"},
                            {"torchtune", "enable_activation_offloading", "memory"},
                            {"torchtune", "enable_fp8_training", "train.compute_dtype"},
                            {"trl", "max_prompt_length", "data.sequence_length"}})
    EXPECT_THAT(fate_of(imported(std::string(one.key) + ": true\n", one.tool), one.key),
                HasSubstr(one.reason))
        << one.key;
}

TEST(ImportEffects, WhatOverwriteOutputDirDoesElsewhereIsTold) {
  const auto told = Contains(HasSubstr("with overwrite_output_dir each start trains anew"));
  const ImportedRecipe anew =
      imported(kLlamaFactory + "overwrite_output_dir: true\nresume_from_checkpoint: null\n",
               "llama-factory");
  EXPECT_EQ(fate_of(anew, "overwrite_output_dir"), "output.overwrite");
  EXPECT_THAT(anew.warnings, told);
  EXPECT_THAT(imported(kLlamaFactory + "overwrite_output_dir: false\n", "llama-factory").warnings,
              Not(told));
  const ImportedRecipe goes_on =
      imported(kLlamaFactory + "overwrite_output_dir: true\nresume_from_checkpoint: true\n",
               "llama-factory");
  EXPECT_THAT(fate_of(goes_on, "overwrite_output_dir"),
              HasSubstr("without effect: resume_from_checkpoint says"));
  EXPECT_THAT(goes_on.text, Not(HasSubstr("overwrite: true")));
}

}  // namespace
}  // namespace qlora::recipes
