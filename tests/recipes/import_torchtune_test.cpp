// What torchtune's tokenizers write around rows, and what its numbers are held in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::fate_of;
using test::imported;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;
using testing::UnorderedElementsAre;

ImportedRecipe torchtune(const std::string& tokenizer, const std::string& more) {
  return imported(
      "{model: {lora_rank: 8}, checkpointer: {checkpoint_dir: m}, epochs: 1,\n"
      " tokenizer: {max_seq_len: 512, _component_: torchtune.models.x." +
          tokenizer + "},\n" + more + "}",
      "torchtune");
}

std::string rows(const std::string& component) {
  return "dataset: {_component_: torchtune.datasets." + component +
         ", source: json, data_files: r.json}";
}

Recipe read(const ImportedRecipe& recipe) {
  EXPECT_THAT(recipe.missing, IsEmpty());
  return parse_recipe(recipe.text, "r.yaml", "/base");
}

TEST(ImportTorchtune, AlpacasWordsStandAloneOnlyWhereItsTokenizerWritesNoTurns) {
  for (const char* alone :
       {"gemma_tokenizer", "gemma2_tokenizer", "llama2_tokenizer, prompt_template: null",
        "mistral_tokenizer, prompt_template: null"}) {
    const ImportedRecipe recipe = torchtune(alone, rows("alpaca_dataset"));
    EXPECT_EQ(read(recipe).data.prompt_style, "alpaca") << alone;
    EXPECT_THAT(recipe.warnings, Each(Not(HasSubstr("Alpaca's words")))) << alone;
  }
  for (const char* name : {"llama3_tokenizer", "qwen2_5_tokenizer", "phi3_mini_tokenizer",
                           "llama2_tokenizer", "mistral_tokenizer"}) {
    const ImportedRecipe recipe = torchtune(name, rows("alpaca_cleaned_dataset"));
    EXPECT_EQ(read(recipe).data.prompt_style, "chat_template") << name;
    EXPECT_THAT(recipe.warnings, Contains(StartsWith(std::string("torchtune's ") + name +
                                                     " writes its turns around Alpaca's words")));
  }
}

TEST(ImportTorchtune, MessagesWithoutTurnsAreToldOf) {
  for (const char* component : {"chat_dataset", "instruct_dataset"}) {
    EXPECT_THAT(torchtune("gemma_tokenizer", rows(component)).warnings,
                Contains(HasSubstr("gemma_tokenizer writes no turns around messages")));
    EXPECT_THAT(torchtune("llama3_tokenizer", rows(component)).warnings,
                Each(Not(HasSubstr("turns"))));
  }
  const char* both =
      "datasets: [{_component_: torchtune.datasets.alpaca_dataset, data_files: a.json, weight: "
      "1},\n"
      " {_component_: torchtune.datasets.instruct_dataset, data_files: b.json, weight: 1}]";
  EXPECT_THAT(torchtune("gemma_tokenizer", both).warnings,
              Contains(HasSubstr("also words the rows of instruct_dataset")));
}

TEST(ImportTorchtune, TheQuestionOfAnInstructionIsReadOnce) {
  const auto fields = [](const std::string& component) {
    return read(torchtune("llama3_tokenizer", rows(component))).data.train[0].fields;
  };
  const auto system = Pair("system", "none"), history = Pair("history", "none");
  EXPECT_THAT(
      fields("instruct_dataset"),
      UnorderedElementsAre(Pair("instruction", "input"), Pair("input", "none"), system, history));
  EXPECT_THAT(fields("alpaca_dataset"), UnorderedElementsAre(system, history));
  const ImportedRecipe mapped =
      torchtune("llama3_tokenizer",
                "dataset: {_component_: torchtune.datasets.instruct_dataset, data_files: r.json, "
                "column_map: {input: q, output: a}}");
  EXPECT_THAT(read(mapped).data.train[0].fields,
              UnorderedElementsAre(Pair("instruction", "q"), Pair("input", "none"),
                                   Pair("output", "a"), system, history));
}

TEST(ImportTorchtune, ACosineThatFallsOnceIsTheSame) {
  const auto cycles = [](const std::string& count) {
    return fate_of(torchtune("llama3_tokenizer",
                             "lr_scheduler: {_component_: get_cosine_schedule_"
                             "with_warmup, num_cycles: " +
                                 count + "}"),
                   "lr_scheduler.num_cycles");
  };
  EXPECT_THAT(cycles("0.5"), StartsWith("without effect: a cosine falls once"));
  EXPECT_THAT(cycles("1"), StartsWith("refused: a cosine falls once"));
}

TEST(ImportTorchtune, TheTypeIsThatOfTheProductsToo) {
  const Recipe single = read(torchtune("llama3_tokenizer", rows("chat_dataset") + ", dtype: fp32"));
  EXPECT_EQ(single.model.dtype, "float32");
  EXPECT_EQ(single.train.compute_dtype, "float32");
  const ImportedRecipe half = torchtune("llama3_tokenizer", rows("chat_dataset") + ", dtype: bf16");
  EXPECT_EQ(read(half).model.dtype, "bfloat16");
  EXPECT_EQ(read(half).train.compute_dtype, "auto");
  EXPECT_THAT(half.warnings, Contains(HasSubstr("lora.dtype: bfloat16 rounds them as there")));
}

TEST(ImportSchedules, TransformersCyclesAreThoseOfRestartsAlone) {
  const auto trl = [](const std::string& schedule, const std::string& arguments) {
    return imported("model_name_or_path: m\nuse_peft: true\nlr_scheduler_kwargs: {" + arguments +
                        "}\nlr_scheduler_type: " + schedule + "\n",
                    "trl");
  };
  const std::string key = "lr_scheduler_kwargs";
  EXPECT_EQ(fate_of(trl("cosine_with_restarts", "num_cycles: 3"), key), "optim.num_cycles");
  EXPECT_THAT(fate_of(trl("cosine", "num_cycles: 0.5"), key), StartsWith("without effect"));
  EXPECT_THAT(fate_of(trl("cosine", "num_cycles: 2"), key), StartsWith("refused: num_cycles"));
}

}  // namespace
}  // namespace qlora::recipes
