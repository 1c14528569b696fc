// The revision of a model on the hub, which other tools name by a key of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "recipes/import/import_recipe.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::keys_with;
using test::outcome_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::UnorderedElementsAre;

struct RevisionKeys {
  const char *tool, *path, *revision;
};
constexpr RevisionKeys kRevisionKeys[] = {{"axolotl", "base_model", "revision_of_model"},
                                          {"llama-factory", "model_name_or_path", "model_revision"},
                                          {"peft", "base_model_name_or_path", "revision"},
                                          {"trl", "model_name_or_path", "model_revision"}};

TEST(Import, TheRevisionOfAHubIdBecomesPartOfThePathInEitherOrder) {
  for (const RevisionKeys& keys : kRevisionKeys) {
    const std::string path = std::string(keys.path) + ": org/model\n";
    const std::string revision = std::string(keys.revision) + ": v1.0\n";
    for (const std::string& file : {path + revision, revision + path}) {
      const ImportedRecipe recipe = imported(file, keys.tool);
      EXPECT_THAT(recipe.text, HasSubstr("path: \"org/model@v1.0\"")) << file;
      EXPECT_THAT(keys_with(recipe, Fate::kMapped), UnorderedElementsAre(keys.path, keys.revision));
    }
    const ImportedRecipe none = imported(path + keys.revision + ": null\n", keys.tool);
    EXPECT_THAT(none.text, HasSubstr("path: org/model")) << keys.tool;
    EXPECT_THAT(none.text, Not(HasSubstr("org/model@"))) << keys.tool;
  }
}

TEST(Import, ARevisionWithSlashesIsTakenAndOneThatLeavesTheCacheIsRefused) {
  for (const RevisionKeys& keys : kRevisionKeys) {
    const std::string path = std::string(keys.path) + ": org/model\n" + keys.revision + ": ";
    EXPECT_THAT(imported(path + "refs/pr/1\n", keys.tool).text,
                HasSubstr("path: \"org/model@refs/pr/1\""));
    const ImportedRecipe elsewhere = imported(path + "../main\n", keys.tool);
    EXPECT_THAT(keys_with(elsewhere, Fate::kRefused), ElementsAre(keys.revision)) << keys.tool;
  }
}

TEST(Import, TheRevisionOfWhatIsNoHubIdIsRefused) {
  for (const RevisionKeys& keys : kRevisionKeys)
    for (const char* path : {"/models/mine", "org/model@v2", "model.gguf"}) {
      const ImportedRecipe recipe = imported(
          std::string(keys.path) + ": " + path + "\n" + keys.revision + ": v1\n", keys.tool);
      EXPECT_THAT(recipe.text, HasSubstr(path)) << keys.tool;
      EXPECT_THAT(keys_with(recipe, Fate::kRefused), ElementsAre(keys.revision));
      EXPECT_THAT(outcome_of(recipe, keys.revision)->reason, HasSubstr("org/name@REV"));
    }
}

}  // namespace
}  // namespace qlora::recipes
