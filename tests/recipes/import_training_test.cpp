// What other tools' files say of the messages of a row: which are trained, and what stands in front
// of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {

using test::fate_of;
using test::imported;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string llama_factory(const std::string& more) {
  const std::string file =
      "model_name_or_path: org/model\nstage: sft\nfinetuning_type: lora\ndataset: mine\n";
  return file + (more.starts_with("template:") ? "" : "template: llama3\n") + more;
}

TEST(ImportTraining, LlamaFactorysMaskHistoryTrainsTheLastAnswer) {
  for (const char* more : {"mask_history: true\n", "mask_history: true\ntrain_on_prompt: false\n",
                           "train_on_prompt: false\nmask_history: true\n"}) {
    const ImportedRecipe recipe = imported(llama_factory(more), "llama-factory");
    EXPECT_EQ(fate_of(recipe, "mask_history"), "data.train_on") << more;
    EXPECT_THAT(recipe.text, HasSubstr("train_on: last")) << more;
  }
  const ImportedRecipe off = imported(llama_factory("mask_history: false\n"), "llama-factory");
  EXPECT_THAT(off.text, Not(HasSubstr("train_on: last")));
  const ImportedRecipe both =
      imported(llama_factory("train_on_prompt: true\nmask_history: true\n"), "llama-factory");
  EXPECT_THAT(fate_of(both, "mask_history"), HasSubstr("refused: train_on_prompt says that"));
}

TEST(ImportTraining, ADefaultSystemMessageIsThatOfEveryDataSetOfConversations) {
  const ImportedRecipe recipe =
      imported(llama_factory("default_system: Be brief.\n"), "llama-factory");
  EXPECT_EQ(fate_of(recipe, "default_system"), "data.train[].system");
  EXPECT_THAT(recipe.text, HasSubstr(R"(system: "Be brief.")"));
  const char* axolotl =
      "base_model: org/model\nadapter: qlora\ndefault_system_message: Be brief.\n"
      "datasets:\n  - {path: org/a, type: chat_template}\n  - {path: org/b, type: completion}\n";
  EXPECT_THAT(fate_of(imported(axolotl, "axolotl"), "default_system_message"),
              HasSubstr("without effect: it acts only beside chat_template: chatml"));
  const ImportedRecipe chatml =
      imported(std::string(axolotl) + "chat_template: chatml\n", "axolotl");
  EXPECT_EQ(fate_of(chatml, "default_system_message"), "data.train[].system");
  EXPECT_THAT(chatml.text, HasSubstr(R"({path: org/a, format: chat, system: "Be brief."})"));
  EXPECT_THAT(chatml.text, HasSubstr("{path: org/b, format: text}"));
  const ImportedRecipe torchtune = imported(
      "dataset:\n  _component_: torchtune.datasets.chat_dataset\n  source: org/a\n"
      "  conversation_style: openai\n  new_system_prompt: Be brief.\n",
      "torchtune");
  EXPECT_THAT(torchtune.text, HasSubstr(R"({path: org/a, format: chat, system: "Be brief."})"));
}

TEST(ImportTraining, AxolotlsKeysOfMessages) {
  const auto fate = [](const std::string& key, const std::string& value) {
    const std::string file =
        "base_model: org/model\nadapter: qlora\ndatasets:\n"
        "  - {path: org/a, type: chat_template, " +
        key + ": " + value + "}\n";
    return fate_of(imported(file, "axolotl"), "datasets[]." + key);
  };
  EXPECT_THAT(fate("roles_to_train", "[assistant]"), HasSubstr("without effect"));
  EXPECT_THAT(fate("roles_to_train", "[assistant, user]"), HasSubstr("refused"));
  EXPECT_THAT(fate("roles_to_train", "[]"),
              HasSubstr("refused: answers are trained unless a mark"));
  for (const char* key : {"train_on_eos", "train_on_eot"}) {
    EXPECT_THAT(fate(key, "turn"), HasSubstr("without effect"));
    EXPECT_THAT(fate(key, "last"), HasSubstr("data.train_on: last trains the last answer"));
  }
  EXPECT_THAT(fate("message_field_training", "train"), HasSubstr("without effect"));
  EXPECT_THAT(fate("message_field_training", "is_good"),
              HasSubstr("refused: it is called train, training"));
  EXPECT_THAT(fate("field_thinking", "reasoning_content"), HasSubstr("without effect"));
  EXPECT_THAT(fate("field_thinking", "cot"), HasSubstr("refused: it is called reasoning_content"));
  EXPECT_THAT(fate("message_field_training_detail", "detail"), HasSubstr("refused"));
  EXPECT_THAT(fate("drop_system_message", "true"), HasSubstr("refused"));
  EXPECT_THAT(fate("drop_system_message", "false"), HasSubstr("without effect"));
}

TEST(ImportTraining, ATemplateThatIsNotHadIsNotWithoutEffect) {
  for (const char* name : {"deepseek3", "glm4", "qwen3", "qwen3_nothink", "qwen"}) {
    const ImportedRecipe recipe =
        imported(llama_factory(std::string("template: ") + name + "\n"), "llama-factory");
    EXPECT_THAT(fate_of(recipe, "template"),
                StartsWith(std::string("refused: ") + name + " is no built-in template"));
    EXPECT_THAT(fate_of(recipe, "template"), HasSubstr("data.chat_template"));
    EXPECT_THAT(recipe.text, Not(HasSubstr("chat_template:")));
  }
  const auto axolotl = [](const std::string& lines) {
    return imported("base_model: m\nadapter: lora\n" + lines, "axolotl");
  };
  for (const char* name : {"mistral_v3_tekken", "qwen_25", "command_a", "jinja"})
    EXPECT_THAT(fate_of(axolotl(std::string("chat_template: ") + name + "\n"), "chat_template"),
                StartsWith("refused: "));
  for (const char* name : {"tokenizer_default", "tokenizer_default_fallback_chatml"})
    EXPECT_THAT(fate_of(axolotl(std::string("chat_template: ") + name + "\n"), "chat_template"),
                StartsWith("without effect: the model's own template"));
  const auto conversation = [&](const std::string& name) {
    return fate_of(
        axolotl("datasets: [{path: r.jsonl, type: sharegpt, conversation: " + name + "}]"),
        "datasets[].conversation");
  };
  EXPECT_EQ(conversation("chatml"), "data.chat_template");
  EXPECT_THAT(conversation("openchat"), StartsWith("refused: openchat is no built-in template"));
  const ImportedRecipe own = axolotl("chat_template: jinja\nchat_template_jinja: mine.jinja\n");
  EXPECT_THAT(fate_of(own, "chat_template"), StartsWith("without effect: chat_template_jinja"));
  EXPECT_EQ(fate_of(own, "chat_template_jinja"), "data.chat_template");
}

TEST(ImportTraining, RowsThatTheToolDoesNotCutAreNotCutHere) {
  const std::string trl = "model_name_or_path: m\nuse_peft: true\ndataset_name: r.jsonl\n";
  for (const char* lines : {"max_length: null\n", "max_length:\ntruncation_mode: keep_start\n"}) {
    const ImportedRecipe recipe = imported(trl + lines, "trl");
    EXPECT_EQ(fate_of(recipe, "max_length"), "data.on_overlength") << lines;
    EXPECT_THAT(recipe.text, HasSubstr("  on_overlength: error  # max_length\n")) << lines;
    EXPECT_THAT(recipe.text, Not(HasSubstr("truncate"))) << lines;
    EXPECT_THAT(recipe.warnings, Contains(StartsWith("TRL cuts no rows where max_length is null")));
  }
  for (const char* lines : {"max_length: 512\n", "learning_rate: 1e-4\n"}) {
    const ImportedRecipe recipe = imported(trl + lines, "trl");
    EXPECT_THAT(recipe.text, HasSubstr("on_overlength: truncate_right")) << lines;
    EXPECT_THAT(recipe.warnings, Not(Contains(HasSubstr("cuts no rows")))) << lines;
  }
  for (const char* strategy : {"bfd_split", "bfd-requeue"}) {
    const ImportedRecipe split = imported(
        trl + "truncation_mode: keep_start\npacking: true\npacking_strategy: " + strategy + "\n",
        "trl");
    EXPECT_EQ(fate_of(split, "packing_strategy"), "data.on_overlength") << strategy;
    EXPECT_THAT(split.text, HasSubstr("  on_overlength: split  # packing_strategy\n")) << strategy;
  }
  EXPECT_THAT(fate_of(imported(trl + "packing_strategy: bfd_split\n", "trl"), "packing_strategy"),
              StartsWith("without effect: packing is off"));
  const auto torchtune = [](const std::string& length) {
    return imported("{model: {lora_rank: 8}, tokenizer: {max_seq_len: " + length + "}}",
                    "torchtune");
  };
  EXPECT_EQ(fate_of(torchtune("null"), "tokenizer.max_seq_len"), "data.on_overlength");
  EXPECT_THAT(torchtune("null").warnings, Contains(StartsWith("torchtune cuts no rows")));
  EXPECT_THAT(torchtune("512").text,
              HasSubstr("  on_overlength: truncate_right  # default of torchtune\n"));
}

TEST(ImportTraining, TrlsPackingKeepsTheBeginningOfARow) {
  const std::string trl =
      "model_name_or_path: m\nuse_peft: true\ndataset_name: r.jsonl\ntruncation_mode: keep_end\n";
  for (const char* strategy : {"", "packing_strategy: bfd\n"}) {
    const ImportedRecipe packed = imported(trl + "packing: true\n" + strategy, "trl");
    EXPECT_THAT(fate_of(packed, "truncation_mode"),
                StartsWith("without effect: packing keeps the beginning"));
    EXPECT_THAT(packed.text, HasSubstr("  on_overlength: truncate_right  # default of TRL\n"));
  }
  for (const char* alone : {"", "packing: false\n"})
    EXPECT_THAT(imported(trl + alone, "trl").text,
                HasSubstr("  on_overlength: truncate_left  # truncation_mode\n"));
}

}  // namespace
}  // namespace qlora::recipes
