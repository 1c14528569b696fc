#include "recipes/yaml/dataset_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "recipes/yaml/recipe_yaml.h"

namespace qlora::recipes {
namespace {

using testing::HasSubstr;

data::DatasetOptions trained() {
  data::DatasetOptions dataset{"train.jsonl", "completion", {{"prompt", "question"}}, "\n"};
  dataset.weight = 2;
  dataset.max_rows = 10;
  dataset.min_tokens = 5;
  return dataset;
}

TEST(DatasetChoice, HasTheLayoutOfTheTrainedRowsButNotWhatWasLeftOutOfThem) {
  const data::DatasetOptions chosen = dataset_choice("test.jsonl", trained(), {});
  EXPECT_EQ(chosen.path, "test.jsonl");
  EXPECT_EQ(chosen.format, "completion");
  EXPECT_EQ(chosen.fields.at("prompt"), "question");
  EXPECT_EQ(chosen.separator, "\n");
  EXPECT_EQ(chosen.weight, 0);
  EXPECT_EQ(chosen.max_rows, 0);
  EXPECT_EQ(chosen.min_tokens, 0);
}

TEST(DatasetChoice, KeysOfTheCommandLineAreThoseOfARecipe) {
  EXPECT_EQ(dataset_option("max_rows"), "--max-rows");
  EXPECT_EQ(dataset_choice("test.jsonl", trained(), {{"max_rows", "3"}}).max_rows, 3);
  try {
    dataset_choice("test.jsonl", trained(), {{"max_rows", "many"}});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--max-rows must be an integer"));
  }
}

TEST(DatasetChoice, ATextIsTakenAsItStands) {
  for (const std::string text :
       {"Say \"hi\" & go # now", "Be brief: always", "# yes", "*bold* text", "[x", "12", "null",
        "'quoted'", "\"quoted\"", "two\nlines", " ", "a \\n b"})
    EXPECT_EQ(dataset_choice("test.jsonl", trained(), {{"system", text}}).system, text);
}

TEST(DatasetChoice, ASeparatorMayBeWrittenWithEscapes) {
  const std::pair<const char*, const char*> separators[] = {
      {"\\n", "\n"},  {"\\n\\n", "\n\n"}, {"\\t", "\t"}, {"\\\\n", "\\n"},       {"\\", "\\"},
      {"\\d", "\\d"}, {" ", " "},         {"\n", "\n"},  {"\"\\n\"", "\n"},      {"\" \"", " "},
      {": ", ": "},   {" # ", " # "},     {"\"", "\""},  {"###\\nA:", "###\nA:"}};
  for (const auto& [written, meant] : separators)
    EXPECT_EQ(dataset_choice("test.jsonl", trained(), {{"separator", written}}).separator, meant)
        << written;
}

TEST(Datasets, ARecipeSaysWhichRowsAndHowMuchOfAnEpoch) {
  const std::string text =
      "model: {path: m}\n"
      "data:\n"
      "  train:\n"
      "    - {path: a.csv, format: alpaca, weight: 0.5, max_rows: 7, min_tokens: 2, max_tokens: "
      "9}\n"
      "    - {path: \"b/train-*.parquet\", weight: 3}\n"
      "  mix_by: tokens\n"
      "  deduplicate: true\n"
      "train: {max_steps: 3}\n"
      "output: {dir: run}\n";
  const Recipe recipe = parse_recipe(text, "r.yaml", "/base", {});
  const data::DatasetOptions& first = recipe.data.train.at(0);
  EXPECT_EQ(first.weight, 0.5);
  EXPECT_EQ(first.max_rows, 7);
  EXPECT_EQ(first.min_tokens, 2);
  EXPECT_EQ(first.max_tokens, 9);
  EXPECT_EQ(recipe.data.train.at(1).path, "/base/b/train-*.parquet");
  EXPECT_EQ(recipe.data.mix_by, "tokens");
  EXPECT_TRUE(recipe.data.deduplicate);
  EXPECT_EQ(write_recipe(parse_recipe(write_recipe(recipe), "r.yaml", "/base", {})),
            write_recipe(recipe));
}

TEST(DataKeys, AnotherTemplateStandsForTheAdaptersTwo) {
  Recipe recipe;
  recipe.data.chat_template = "{{ 1 }}";
  recipe.data.tool_use_template = "{{ 2 }}";
  set_data_keys({"data.train_on=last"}, recipe);
  EXPECT_EQ(recipe.data.tool_use_template, "{{ 2 }}");
  set_data_keys({"data.chat_template=chatml"}, recipe);
  EXPECT_EQ(recipe.data.chat_template, "chatml");
  EXPECT_EQ(recipe.data.tool_use_template, "");
}

}  // namespace
}  // namespace qlora::recipes
