// Trainings that compare answers, in the files of other tools: what these do there unasked, and
// which of two such trainings a file is for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::fate_of;
using test::imported;
using test::keys_with;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

const std::string kTrl = "model_name_or_path: m\ndataset_name: r.jsonl\nuse_peft: true\n";
const std::string kAxolotl =
    "base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: chatml.ultra}]\n";
const std::string kLlamaFactory =
    "model_name_or_path: m\nfinetuning_type: lora\ndataset: d\nlora_dropout: 0.1\n";

Recipe read(const ImportedRecipe& recipe) {
  EXPECT_THAT(recipe.missing, IsEmpty());
  return parse_recipe(recipe.text, "r.yaml", "/base");
}

TEST(ImportPreferences, TrlSwitchesDropoutOffUnlessTheFileSaysOtherwise) {
  for (const char* keys : {"beta: 0.1\n", "beta: 0.1\nlora_dropout: 0.1\n", "loss_type: [ipo]\n",
                           "beta: 0.1\ndisable_dropout: true\nlora_dropout: 0.1\n",
                           "lora_dropout: 0.1\ndisable_dropout: true\n"}) {
    const ImportedRecipe recipe = imported(kTrl + keys, "trl");
    EXPECT_EQ(read(recipe).lora.dropout, 0) << keys;
    EXPECT_THAT(recipe.text, HasSubstr("  dropout: 0  # ")) << keys;
    EXPECT_THAT(recipe.warnings, Contains(StartsWith("TRL trains DPO and ORPO without dropout (")));
    if (std::string(keys).find("lora_dropout") != std::string::npos) {
      EXPECT_THAT(fate_of(recipe, "lora_dropout"), StartsWith("without effect: disable_dropout"));
    }
  }
}

TEST(ImportPreferences, ADropoutThatActsInTrlIsTakenOver) {
  const std::string acts = "disable_dropout: false\n";
  EXPECT_EQ(read(imported(kTrl + "beta: 0.1\n" + acts, "trl")).lora.dropout, 0.05);
  EXPECT_EQ(read(imported(kTrl + "lora_dropout: 0.2\nbeta: 0.1\n" + acts, "trl")).lora.dropout,
            0.2);
  const ImportedRecipe demonstrations = imported(kTrl + "lora_dropout: 0.2\n", "trl");
  EXPECT_EQ(read(demonstrations).lora.dropout, 0.2);
  EXPECT_THAT(demonstrations.warnings, Each(Not(HasSubstr("dropout"))));
}

TEST(ImportPreferences, SoDoAxolotlAndLlamaFactory) {
  for (const char* way : {"dpo", "ipo", "orpo"}) {
    const ImportedRecipe recipe =
        imported(kAxolotl + "lora_dropout: 0.05\nrl: " + way + "\n", "axolotl");
    EXPECT_EQ(read(recipe).lora.dropout, 0) << way;
    EXPECT_THAT(fate_of(recipe, "lora_dropout"), StartsWith("without effect: TRL's trainers"));
    EXPECT_THAT(recipe.warnings, Contains(HasSubstr("without dropout (by TRL's trainers")));
  }
  for (const char* loss : {"sigmoid", "orpo"}) {
    const ImportedRecipe recipe =
        imported(kLlamaFactory + "stage: dpo\npref_loss: " + loss + "\n", "llama-factory");
    EXPECT_THAT(recipe.text, HasSubstr("  dropout: 0  # LLaMA-Factory switches it off\n"));
    EXPECT_THAT(fate_of(recipe, "lora_dropout"), StartsWith("without effect: its trainer"));
    EXPECT_THAT(recipe.warnings, Contains(HasSubstr("whatever lora_dropout says")));
  }
  EXPECT_THAT(imported(kLlamaFactory + "stage: sft\n", "llama-factory").text,
              HasSubstr("  dropout: 0.1  # lora_dropout\n"));
}

TEST(ImportPreferences, AFileThatMayBeForOrpoSaysSoAtTheTopOfTheRecipe) {
  const ImportedRecipe open = imported(kTrl + "beta: 0.2\nmax_length: 512\n", "trl");
  EXPECT_THAT(open.text, HasSubstr("# To know: the file may be for TRL's DPO or for its ORPO"));
  EXPECT_LT(open.text.find("# To know: the file may"), open.text.find("\nmodel:\n"));
  EXPECT_THAT(imported(kTrl + "beta: 0.2\nmax_completion_length: 128\n", "trl").text,
              HasSubstr("(of the two today's ORPOConfig alone has max_completion_length)"));
  for (const char* of_dpo :
       {"loss_type: [sigmoid]\n", "label_smoothing: 0.1\n", "precompute_ref_log_probs: true\n"})
    EXPECT_THAT(imported(kTrl + "beta: 0.2\n" + of_dpo, "trl").text,
                AllOf(HasSubstr("objective: dpo"), Not(HasSubstr("the file may be for"))))
        << of_dpo;
}

TEST(ImportPreferences, TrlsOrpoCutsRowsWithoutALengthToo) {
  const auto told = [](const std::string& lines) {
    return imported(kTrl + "max_length: null\n" + lines, "trl").warnings;
  };
  const auto orpo = HasSubstr("where max_length is null, but its ORPO takes 512 then; here");
  for (const char* open : {"beta: 0.2\n", "beta: 0.2\nmax_completion_length: 128\n"})
    EXPECT_THAT(told(open), Contains(orpo)) << open;
  for (const char* other : {"", "loss_type: [sigmoid]\n", "beta: 0.2\nlabel_smoothing: 0.1\n"}) {
    EXPECT_THAT(told(other), Contains(HasSubstr("where max_length is null; here"))) << other;
    EXPECT_THAT(told(other), Each(Not(orpo))) << other;
  }
}

TEST(ImportPreferences, KeysThatOnlyPairsHaveMakeTheTrainingOneOfPairs) {
  for (const char* key : {"loss_type: [hinge]\n", "disable_dropout: true\n",
                          "precompute_ref_log_probs: true\n", "label_smoothing: 0.1\n"}) {
    const Recipe recipe = read(imported(kTrl + key, "trl"));
    EXPECT_EQ(recipe.train.objective, "dpo") << key;
    EXPECT_EQ(recipe.data.train[0].format, "preference") << key;
    EXPECT_EQ(recipe.optim.lr, 1e-6) << key;
  }
  for (const char* key : {"loss_type: nll\n", "loss_type: chunked_nll\n", "packing: true\n"})
    EXPECT_EQ(read(imported(kTrl + key, "trl")).train.objective, "sft") << key;
}

TEST(ImportPreferences, ATypeWithFieldsOfItsOwnNamesThoseOfAxolotlsPairs) {
  const ImportedRecipe recipe = imported(
      "base_model: m\nadapter: lora\nrl: dpo\ndatasets: [{path: r.jsonl, type: {field_prompt: ask, "
      "field_chosen: good, field_rejected: bad, field_system: sys}}]\n",
      "axolotl");
  const std::map<std::string, std::string> fields = {
      {"prompt", "ask"}, {"chosen", "good"}, {"rejected", "bad"}, {"system", "none"}};
  EXPECT_EQ(read(recipe).data.train[0].fields, fields) << recipe.text;
  EXPECT_EQ(fate_of(recipe, "datasets[].type.field_chosen"), "data.train[].fields");
}

TEST(ImportPreferences, RowsThatAreNotKnownYetHaveTheFormatThatTheTrainingReads) {
  const auto line = [](const std::string& format) {
    return HasSubstr("{path: d, format: " + format + "}");
  };
  const auto llama_factory = [](const std::string& stage) {
    return imported(kLlamaFactory + "stage: " + stage + "\n", "llama-factory");
  };
  EXPECT_THAT(llama_factory("dpo").text, line("preference"));
  EXPECT_THAT(llama_factory("dpo\npref_loss: orpo").text, line("preference"));
  EXPECT_THAT(llama_factory("rm").text, line("preference"));
  EXPECT_THAT(llama_factory("pt").text, line("text"));
  EXPECT_THAT(llama_factory("sft").text, line("chat"));
  EXPECT_THAT(llama_factory("kto").missing, Contains(HasSubstr("kto_tag, are not read")));
  const auto nowhere = HasSubstr("train: [{path: rows.jsonl, format: preference}]");
  EXPECT_THAT(imported("model_name_or_path: m\nuse_peft: true\nbeta: 0.1\n", "trl").text, nowhere);
  EXPECT_THAT(imported("base_model: m\nadapter: lora\nrl: dpo\n", "axolotl").text, nowhere);
  EXPECT_THAT(imported("loss: {_component_: torchtune.rlhf.loss.DPOLoss}\ndataset: {_component_: "
                       "torchtune.datasets.hh_rlhf_helpful_dataset, source: d}\n",
                       "torchtune")
                  .text,
              line("preference"));
}

ImportedRecipe pairs_of(const std::string& type, const std::string& more = "") {
  return imported("base_model: m\nadapter: lora\nrl: dpo\n" + more +
                      "datasets: [{path: r.jsonl, type: " + type + "}]\n",
                  "axolotl");
}

TEST(ImportPreferences, AnAxolotlTypeBringsItsTemplateWithIt) {
  for (const auto& [type, name] : {std::pair("chatml.ultra", "chatml"),
                                   {"chatml.argilla_chat", "chatml"},
                                   {"llama3.ultra", "llama-3"},
                                   {"llama3.argilla_chat", "llama-3"}})
    for (const char* other : {"", "chat_template: chatml\n", "chat_template: llama3\n",
                              "chat_template: zephyr\n", "chat_template_jinja: mine.jinja\n"}) {
      const ImportedRecipe recipe = pairs_of(type, other);
      EXPECT_EQ(read(recipe).data.chat_template, name) << type << other;
      EXPECT_THAT(keys_with(recipe, Fate::kRefused), IsEmpty()) << type << other;
      EXPECT_EQ(read(recipe).data.train[0].format, "preference");
    }
  EXPECT_THAT(fate_of(pairs_of("chatml.ultra", "chat_template: llama3\n"), "chat_template"),
              StartsWith("without effect: the type of the pairs words them, as chatml does"));
  EXPECT_EQ(fate_of(pairs_of("chatml.ultra", "chat_template: chatml\n"), "chat_template"),
            "data.chat_template");
  EXPECT_THAT(pairs_of("llama3.ultra").warnings,
              Contains(HasSubstr("llama3.ultra takes the first two messages")));
  EXPECT_EQ(read(pairs_of("chatml.argilla_chat")).data.train[0].fields.at("system"), "none");
}

TEST(ImportPreferences, TextsThatATypeWordsAreNotTrainedWithoutItsWords) {
  struct Type {
    std::string name, fields;
  };
  for (const std::string family : {"chatml", "llama3"})
    for (const Type& type :
         {Type{"", ""}, Type{".prompt_pairs", ""}, Type{".icr", ", fields: {prompt: input}"},
          Type{".intel", ", fields: {prompt: question}"},
          Type{".argilla",
               ", fields: {chosen: chosen_response, prompt: instruction, rejected: "
               "rejected_response}"}}) {
      const ImportedRecipe recipe = pairs_of(family + type.name);
      EXPECT_THAT(fate_of(recipe, "datasets[].type"),
                  AllOf(StartsWith("refused: "), HasSubstr("texts of pairs are taken as they")));
      EXPECT_THAT(recipe.missing, Contains(HasSubstr("write each answer as a message")));
      EXPECT_THAT(recipe.text,
                  HasSubstr("  #   - {path: r.jsonl, format: preference" + type.fields + "}\n"));
      EXPECT_THAT(recipe.text, HasSubstr(family == "chatml" ? "  chat_template: chatml  # datasets"
                                                            : "  chat_template: llama-3  #"));
    }
}

TEST(ImportPreferences, RowsOfOtherTypesAreNotReadOrAreTextsAsTheyStand) {
  for (const char* type : {"zephyr.nectar", "chatml.other", "mine", "alpaca"})
    EXPECT_THAT(fate_of(pairs_of(type), "datasets[].type"),
                StartsWith(std::string("refused: rows of type ") + type + " are not read"));
  for (const char* type : {"passthrough", "null", "chat_template.argilla_chat"})
    EXPECT_TRUE(read(pairs_of(type)).data.train[0].fields.empty()) << type;
  const ImportedRecipe two = imported(
      "base_model: m\nadapter: lora\nrl: dpo\ndatasets: [{path: a.jsonl, type: llama3.ultra}, "
      "{path: b.jsonl, type: chatml.ultra}]\n",
      "axolotl");
  EXPECT_THAT(two.missing, Contains(HasSubstr("a recipe has one such key, which is llama-3")));
}

TEST(ImportPreferences, AxolotlsOrpoLearnsPromptsToo) {
  EXPECT_THAT(imported(kAxolotl + "rl: orpo\ntrain_on_inputs: false\n", "axolotl").warnings,
              Contains(HasSubstr("also learns the prompts of the chosen answers")));
  EXPECT_THAT(imported(kAxolotl + "rl: dpo\n", "axolotl").warnings,
              Each(Not(HasSubstr("learns the prompts"))));
}

}  // namespace
}  // namespace qlora::recipes
