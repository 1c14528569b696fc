// What LLaMA-Factory does with rows otherwise than the formats here, which columns it and Axolotl
// read, and how its data sets are mixed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"
#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {
using test::fate_of;
using test::imported;
using test::TempDir;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;
using testing::UnorderedElementsAre;

const std::string kFile = "model_name_or_path: m\nfinetuning_type: lora\nmax_steps: 1\n";

ImportedRecipe with_info(const std::string& info, const std::string& lines) {
  TempDir dir;
  dir.write("dataset_info.json", info);
  return import_recipe(dir.write("lf.yaml", kFile + lines), "llama-factory");
}

ImportedRecipe llama_factory(const std::string& lines) {
  return imported(kFile + lines, "llama-factory");
}

TEST(ImportRows, LlamaFactoryJoinsInstructionAndInputOtherwise) {
  const std::string alpaca = R"({"a": {"file_name": "a.json"}})";
  EXPECT_THAT(with_info(alpaca, "dataset: a\n").warnings,
              Contains(HasSubstr("one newline between instruction and input")));
  const std::string no_query =
      R"({"a": {"file_name": "a.json", "columns": {"prompt": "q", "response": "a"}}})";
  EXPECT_THAT(with_info(no_query, "dataset: a\n").warnings, Each(Not(HasSubstr("newline"))));
  const std::string chat = R"({"a": {"file_name": "a.json", "formatting": "sharegpt"}})";
  EXPECT_THAT(with_info(chat, "dataset: a\n").warnings, Each(Not(HasSubstr("newline"))));
  const std::string pairs = R"({"a": {"file_name": "a.json", "ranking": true}})";
  EXPECT_THAT(with_info(pairs, "stage: dpo\ndataset: a\n").warnings,
              Contains(HasSubstr("the row's input behind the prompt of the pairs of a")));
}

TEST(ImportRows, AColumnThatLlamaFactoryDoesNotReadIsNotReadHere) {
  const auto fields = [](const std::string& columns) {
    const ImportedRecipe recipe = with_info(
        R"({"a": {"file_name": "a.json", "columns": {)" + columns + "}}}", "dataset: a\n");
    EXPECT_THAT(recipe.warnings, Each(Not(HasSubstr("query")))) << columns;
    return parse_recipe(recipe.text, "r.yaml", "/base").data.train[0].fields;
  };
  const auto system = Pair("system", "none"), history = Pair("history", "none");
  const auto read_once =
      UnorderedElementsAre(Pair("instruction", "input"), Pair("input", "none"), system, history);
  EXPECT_THAT(fields(R"("prompt": "input", "response": "output")"), read_once);
  EXPECT_THAT(fields(R"("prompt": "input", "query": "", "response": "output")"), read_once);
  EXPECT_THAT(fields(R"("prompt": "instruction", "query": "input", "response": "output")"),
              UnorderedElementsAre(system, history));
  EXPECT_THAT(
      fields(R"("prompt": "q", "query": "context", "response": "output")"),
      UnorderedElementsAre(Pair("instruction", "q"), Pair("input", "context"), system, history));
  EXPECT_THAT(fields(R"("query": "input", "system": "sys", "history": "history")"),
              UnorderedElementsAre(Pair("system", "sys")));
}

TEST(ImportRows, AnEmptyNameOfAnAxolotlTypeIsThatOfNoColumn) {
  const auto fields = [](const std::string& type) {
    const ImportedRecipe recipe = imported(
        "base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: {" + type + "}}]\n",
        "axolotl");
    return parse_recipe(recipe.text, "r.yaml", "/base").data.train[0].fields;
  };
  EXPECT_THAT(fields("field_instruction: input, field_input: '', field_system: ''"),
              UnorderedElementsAre(Pair("instruction", "input"), Pair("input", "none"),
                                   Pair("system", "none")));
  // Without a name Axolotl reads the column input as well.
  EXPECT_THAT(fields("field_instruction: q"), UnorderedElementsAre(Pair("instruction", "q")));
}

TEST(ImportRows, LlamaFactoryCutsPromptAndAnswer) {
  const ImportedRecipe sft = llama_factory("stage: sft\ndataset: a\n");
  EXPECT_THAT(sft.text, HasSubstr("  on_overlength: truncate_right  # default of LLaMA-Factory"));
  EXPECT_THAT(sft.warnings, Contains(StartsWith("of a row beyond cutoff_len")));
  const ImportedRecipe texts = llama_factory("stage: pt\ndataset: a\n");
  EXPECT_THAT(texts.text, HasSubstr("  on_overlength: split  # default of LLaMA-Factory"));
  EXPECT_THAT(texts.warnings, Each(Not(HasSubstr("cutoff_len"))));
  EXPECT_THAT(llama_factory("stage: pt\ndataset: a\npacking: false\n").text,
              HasSubstr("on_overlength: truncate_right"));
}

TEST(ImportRows, LlamaFactorysPackedRowsSeeEachOtherUnlessItPacksNeatly) {
  const auto tells = Contains(StartsWith("LLaMA-Factory's rows see those before them"));
  EXPECT_THAT(llama_factory("dataset: a\npacking: true\n").warnings, tells);
  EXPECT_THAT(llama_factory("dataset: a\nstage: pt\n").warnings, tells);
  for (const char* lines : {"dataset: a\npacking: true\nneat_packing: true\n",
                            "dataset: a\nneat_packing: true\n", "dataset: a\n"})
    EXPECT_THAT(llama_factory(lines).warnings, Not(tells)) << lines;
}

TEST(ImportRows, DataSetsThatTakeTurnsHaveWeights) {
  const std::string info = R"({"a": {"file_name": "a.json"}, "b": {"file_name": "b.json"}})";
  const auto weights = [&](const std::string& lines) {
    const ImportedRecipe recipe = with_info(info, lines);
    const Recipe read = parse_recipe(recipe.text, "r.yaml", "/base");
    return std::vector<double>{read.data.train[0].weight, read.data.train[1].weight};
  };
  EXPECT_THAT(weights("dataset: a,b\nmix_strategy: interleave_under\n"), ElementsAre(1, 1));
  EXPECT_THAT(weights("dataset: a,b\nmix_strategy: concat\n"), ElementsAre(0, 0));
  EXPECT_THAT(weights("dataset: a,b\nmix_strategy: interleave_over\ninterleave_probs: 0.7,0.3\n"),
              ElementsAre(0.7, 0.3));
  EXPECT_THAT(weights("dataset: a,b\nstreaming: true\nmix_strategy: interleave_under\n"),
              ElementsAre(1, 1));
  const ImportedRecipe under = with_info(info, "dataset: a,b\nmix_strategy: interleave_under\n");
  EXPECT_EQ(fate_of(under, "mix_strategy"), "data.train[].weight");
  EXPECT_THAT(under.warnings, Contains(HasSubstr("when the first data set is used up")));
  EXPECT_THAT(with_info(info, "dataset: a,b\nmix_strategy: interleave_over\n").warnings,
              Contains(HasSubstr("when the last data set is used up")));
}

TEST(ImportRows, AMixtureThatIsNoneIsToldOf) {
  EXPECT_THAT(fate_of(llama_factory("dataset: a\nmix_strategy: interleave_over\n"), "mix_strategy"),
              StartsWith("without effect: there is one data set"));
  EXPECT_THAT(fate_of(llama_factory("dataset: a,b\ninterleave_probs: 0.5\n"), "interleave_probs"),
              StartsWith("refused: it must have a number for each data set"));
  EXPECT_THAT(fate_of(llama_factory("dataset: a,b\nmix_strategy: concat\n"), "mix_strategy"),
              StartsWith("without effect"));
}

}  // namespace
}  // namespace qlora::recipes
