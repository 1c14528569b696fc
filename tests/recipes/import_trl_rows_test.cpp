// Which rows TRL finds in a file, what it does with the column of texts, and on which rows it
// evaluates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"
#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {
using test::fate_of;
using test::imported;
using test::TempDir;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

const std::string kModel = "model_name_or_path: m\nuse_peft: true\n";
const std::string kName = "dataset_name: rows.jsonl\n";
const std::string kTexts = "dataset_text_field: text\n";

ImportedRecipe of_rows(const std::string& row, const std::string& lines = kName + kTexts) {
  TempDir dir;
  dir.write("rows.jsonl", row + "\n");
  return import_recipe(dir.write("trl.yaml", kModel + lines), "trl");
}

Recipe read(const ImportedRecipe& recipe) {
  EXPECT_THAT(recipe.missing, IsEmpty()) << recipe.text;
  return parse_recipe(recipe.text, "r.yaml", "/base");
}

constexpr const char* kMessages =
    R"({"text": "t", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";

TEST(ImportTrlRows, AColumnOfTextsActsOnRowsOfTextsAlone) {
  const ImportedRecipe messages = of_rows(kMessages);
  EXPECT_EQ(read(messages).data.train[0].format, "chat");
  EXPECT_EQ(read(messages).data.train_on, data::TrainOn::kAll);
  EXPECT_THAT(fate_of(messages, "dataset_text_field"),
              StartsWith("without effect: it names the column of texts"));
  const ImportedRecipe texts = of_rows(R"({"text": "t", "id": 1})");
  EXPECT_EQ(read(texts).data.train[0].format, "text");
  EXPECT_EQ(fate_of(texts, "dataset_text_field"), "data.train[].fields");
  const ImportedRecipe body =
      of_rows(R"({"body": "t", "text": "u"})", kName + "dataset_text_field: body\n");
  EXPECT_EQ(read(body).data.train[0].fields.at("text"), "body");
  EXPECT_EQ(read(of_rows(R"({"text": "t"})", kName)).data.train[0].format, "text");
}

TEST(ImportTrlRows, TheColumnsSayWhatTheRowsAre) {
  const Recipe completions = read(of_rows(R"({"prompt": "q", "completion": "a", "text": "t"})"));
  EXPECT_EQ(completions.data.train[0].format, "completion");
  EXPECT_EQ(completions.data.train_on, data::TrainOn::kAssistant);
  EXPECT_EQ(read(of_rows(R"({"prompt": "q", "completion": "a"})",
                         kName + "completion_only_loss: false\n"))
                .data.train_on,
            data::TrainOn::kAll);
  const Recipe turns = read(of_rows(R"({"conversations": [{"from": "human", "value": "q"}]})"));
  EXPECT_EQ(turns.data.train[0].format, "sharegpt");
  const Recipe named = read(of_rows(R"({"conversations": [{"role": "user", "content": "q"}]})"));
  EXPECT_EQ(named.data.train[0].format, "chat");
  EXPECT_EQ(named.data.train[0].fields.at("messages"), "conversations");
  const ImportedRecipe pairs =
      of_rows(R"({"prompt": "q", "chosen": "a", "rejected": "b"})", kName + "beta: 0.1\n");
  EXPECT_EQ(read(pairs).data.train[0].format, "preference");
  const ImportedRecipe messages =
      of_rows(R"({"prompt": [{"role": "user", "content": "q"}], )"
              R"("completion": [{"role": "assistant", "content": "a"}]})");
  EXPECT_THAT(messages.missing, ElementsAre(HasSubstr("messages as prompt and completion")));
}

TEST(ImportTrlRows, SoDoThoseOfAMixture) {
  const ImportedRecipe recipe =
      of_rows(kMessages, kTexts + "datasets: [{path: json, data_files: [rows.jsonl]}]\n");
  EXPECT_EQ(read(recipe).data.train[0].format, "chat");
  EXPECT_THAT(fate_of(recipe, "dataset_text_field"), StartsWith("without effect: "));
  EXPECT_EQ(read(of_rows(R"({"text": "t"})", kTexts + "datasets: [{path: rows.jsonl}]\n"))
                .data.train[0]
                .format,
            "text");
}

TEST(ImportTrlRows, RowsThatAreNotHereAreTextsIfTheirColumnIsNamed) {
  EXPECT_EQ(read(imported(kModel + kName + kTexts, "trl")).data.train[0].format, "text");
  EXPECT_EQ(read(imported(kModel + kName, "trl")).data.train[0].format, "chat");
}

TEST(ImportTrlRows, TheSplitThatIsEvaluatedOnIsToBeFilledIn) {
  const ImportedRecipe recipe =
      imported(kModel + "dataset_name: org/rows\neval_strategy: steps\neval_steps: 100\n", "trl");
  EXPECT_EQ(fate_of(recipe, "eval_steps"), "train.eval_every");
  EXPECT_THAT(recipe.text, AllOf(HasSubstr("  eval_every: 100  # eval_steps\n"),
                                 HasSubstr("  # eval:\n  #   - {path: org/rows, format: chat}\n")));
  EXPECT_THAT(recipe.missing,
              ElementsAre(HasSubstr("data.train: org/rows is a data set of the Hub"),
                          HasSubstr("data.eval: the split test of org/rows, which TRL")));
  const ImportedRecipe named = imported(
      kModel + "dataset_name: org/rows\neval_strategy: epoch\ndataset_test_split: validation\n",
      "trl");
  EXPECT_THAT(named.missing, Contains(HasSubstr("the split validation of org/rows")));
  EXPECT_EQ(fate_of(named, "dataset_test_split"), "data.eval");
}

TEST(ImportTrlRows, NothingIsToBeFilledInWhereTrlEvaluatesOnNoSplit) {
  for (const char* lines : {"", "eval_strategy: \"no\"\neval_steps: 100\n",
                            "do_eval: true\ndataset_test_split: test\n"}) {
    const ImportedRecipe recipe = imported(kModel + kName + lines, "trl");
    EXPECT_THAT(recipe.missing, IsEmpty()) << lines;
    EXPECT_THAT(recipe.text, Not(HasSubstr("eval_every"))) << lines;
  }
  const ImportedRecipe share = imported(kModel +
                                            "datasets: [{path: rows.jsonl}]\neval_strategy: steps\n"
                                            "eval_steps: 100\ntest_split_size: 0.1\n",
                                        "trl");
  EXPECT_EQ(read(share).data.eval_fraction, 0.1);
  EXPECT_EQ(read(share).train.eval_every, 100);
  EXPECT_THAT(share.warnings, Each(Not(HasSubstr("split"))));
}

}  // namespace
}  // namespace qlora::recipes
