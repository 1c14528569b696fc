// Which rows TRL finds in a file, and what it does with the column of texts.
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
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
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

}  // namespace
}  // namespace qlora::recipes
