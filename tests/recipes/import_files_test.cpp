// The files that the files of other tools name, of rows, templates and adapters, and what is taken
// for something of the Hub.
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
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

std::string axolotl(const std::string& entry) {
  return "base_model: m\nadapter: lora\ndatasets: [{type: completion, " + entry + "}]\n";
}

// Of data.train; nothing may be missing.
std::vector<std::string> paths(const ImportedRecipe& recipe) {
  EXPECT_THAT(recipe.missing, IsEmpty()) << recipe.text;
  std::vector<std::string> paths;
  for (const auto& dataset : parse_recipe(recipe.text, "r.yaml", "/base").data.train)
    paths.push_back(dataset.path);
  return paths;
}

std::vector<std::string> axolotl_paths(const std::string& entry) {
  const ImportedRecipe recipe = imported(axolotl(entry), "axolotl");
  EXPECT_EQ(fate_of(recipe, "datasets[].data_files"), "data.train[].path") << entry;
  return paths(recipe);
}

TEST(ImportFiles, EachFileOfDataFilesIsAnEntry) {
  EXPECT_THAT(axolotl_paths("path: json, data_files: [a.jsonl, b.jsonl]"),
              ElementsAre("/base/a.jsonl", "/base/b.jsonl"));
  EXPECT_THAT(axolotl_paths("path: json, data_files: a.jsonl"), ElementsAre("/base/a.jsonl"));
  EXPECT_THAT(axolotl_paths("path: csv, data_files: {train: a.csv, test: b.csv}"),
              ElementsAre("/base/a.csv"));
  EXPECT_THAT(axolotl_paths("path: csv, split: test, data_files: {train: a.csv, test: [b.csv]}"),
              ElementsAre("/base/b.csv"));
  const ImportedRecipe both =
      imported(axolotl("path: json, data_files: [a.jsonl, b.jsonl], field: body"), "axolotl");
  for (const auto& dataset : parse_recipe(both.text, "r.yaml", "/base").data.train) {
    EXPECT_EQ(dataset.format, "text");
    EXPECT_EQ(dataset.fields.at("text"), "body");
  }
}

TEST(ImportFiles, FilesOfAFolderAreNamedWithIt) {
  EXPECT_THAT(axolotl_paths("path: rows/, data_files: [a.jsonl, b.jsonl]"),
              ElementsAre("/base/rows/a.jsonl", "/base/rows/b.jsonl"));
  EXPECT_THAT(axolotl_paths("path: ./rows, data_files: [./rows/a.jsonl, /other/b.jsonl]"),
              ElementsAre("/base/rows/a.jsonl", "/other/b.jsonl"));
  TempDir dir;
  dir.write("rows/a.jsonl", "{}");
  dir.write("b.jsonl", "{}");
  const ImportedRecipe recipe = import_recipe(
      dir.write("a.yml", axolotl("path: rows, data_files: [a.jsonl, b.jsonl]")), "axolotl");
  EXPECT_THAT(recipe.text, AllOf(HasSubstr("{path: rows/a.jsonl,"), HasSubstr("{path: b.jsonl,")));
  EXPECT_THAT(recipe.missing, IsEmpty());
}

TEST(ImportFiles, SoDoTrlAndTorchtune) {
  EXPECT_THAT(paths(imported("model_name_or_path: m\nuse_peft: true\n"
                             "datasets: [{path: json, data_files: [a.jsonl, b.jsonl]}]\n",
                             "trl")),
              ElementsAre("/base/a.jsonl", "/base/b.jsonl"));
  EXPECT_THAT(paths(imported("model: {lora_rank: 8}\ncheckpointer: {checkpoint_dir: m}\nepochs: 1\n"
                             "dataset: {_component_: torchtune.datasets.text_completion_dataset, "
                             "source: json, data_files: [a.jsonl, b.jsonl]}\n",
                             "torchtune")),
              ElementsAre("/base/a.jsonl", "/base/b.jsonl"));
}

TEST(ImportFiles, FilesOfADataSetOfTheHubAreToBeDownloaded) {
  const ImportedRecipe recipe =
      imported(axolotl("path: org/rows, data_files: [a.jsonl, b.jsonl]"), "axolotl");
  EXPECT_THAT(recipe.missing,
              ElementsAre(HasSubstr("org/rows is a data set of the Hub; download it")));
  EXPECT_THAT(recipe.text,
              AllOf(HasSubstr("  #   - {path: a.jsonl,"), HasSubstr("  #   - {path: b.jsonl,")));
  EXPECT_THAT(imported(axolotl("path: json, data_files: {test: b.jsonl}"), "axolotl").missing,
              ElementsAre(HasSubstr("which are not in data_files of json")));
}

TEST(ImportFiles, AFolderIsNoDataSetOfTheHub) {
  for (const char* folder : {"rows/", "my/rows/", "./rows", "/data/rows", "../rows", "~/rows"})
    EXPECT_THAT(imported(axolotl(std::string("path: ") + folder), "axolotl").missing, IsEmpty())
        << folder;
  for (const char* hub : {"org/rows", "imdb"})
    EXPECT_THAT(imported(axolotl(std::string("path: ") + hub), "axolotl").missing,
                Contains(HasSubstr("is a data set of the Hub")))
        << hub;
}

TEST(ImportFiles, ALoaderAndAnAddressAreNoDataSetsOfTheHub) {
  for (const char* path : {"json", "csv", "parquet", "https://host/rows.jsonl", "s3://rows/a"}) {
    const auto missing = imported(axolotl(std::string("path: ") + path), "axolotl").missing;
    EXPECT_THAT(missing, SizeIs(1)) << path;
    EXPECT_THAT(missing, Each(AllOf(HasSubstr(path), Not(HasSubstr("Hub"))))) << path;
  }
}

TEST(ImportFiles, ATemplateIsAFileATextOrBuiltIn) {
  const std::string trl = "model_name_or_path: m\nuse_peft: true\ndataset_name: r.jsonl\n";
  const auto path = [&](const std::string& value) {
    return fate_of(imported(trl + "chat_template_path: " + value + "\n", "trl"),
                   "chat_template_path");
  };
  EXPECT_EQ(path("mine.jinja"), "data.chat_template");
  EXPECT_EQ(path("templates/mine.j2"), "data.chat_template");
  for (const char* model : {"HuggingFaceTB/SmolLM3-3B", "/models/mine", "chatml"})
    EXPECT_THAT(path(model), StartsWith("refused: it names a model whose template is taken"));
  TempDir dir;
  dir.write("other/chat_template.jinja", "{{ messages }}");
  const ImportedRecipe recipe =
      import_recipe(dir.write("t.yaml", trl + "chat_template_path: other\n"), "trl");
  EXPECT_THAT(recipe.text, HasSubstr("  chat_template: other/chat_template.jinja  #"));

  const auto jinja = [&](const std::string& value) {
    return fate_of(
        imported(axolotl("path: r.jsonl") + "chat_template_jinja: " + value + "\n", "axolotl"),
        "chat_template_jinja");
  };
  for (const char* taken : {"mine.jinja", "\"{{ messages }}\"", "zephyr"})
    EXPECT_EQ(jinja(taken), "data.chat_template") << taken;
  EXPECT_THAT(jinja("org/model"), StartsWith("refused: the chat template must be a file, "));
}

TEST(ImportFiles, AnAdapterThatMayBeOfTheHubIsToldOf) {
  const auto warnings = [](const std::string& path) {
    return imported(axolotl("path: r.jsonl") + "lora_model_dir: " + path + "\n", "axolotl")
        .warnings;
  };
  const auto told = Contains(HasSubstr("if org/adapter is an adapter of the Hub, download it"));
  EXPECT_THAT(warnings("org/adapter"), told);
  EXPECT_THAT(warnings("./out/adapter"), Each(Not(HasSubstr("of the Hub"))));
  TempDir dir;
  dir.write("org/adapter/adapter_config.json", "{}");
  EXPECT_THAT(
      import_recipe(dir.write("a.yml", axolotl("path: r.jsonl") + "lora_model_dir: org/adapter\n"),
                    "axolotl")
          .warnings,
      Not(told));
}

}  // namespace
}  // namespace qlora::recipes
