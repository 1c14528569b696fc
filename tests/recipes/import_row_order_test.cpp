// In which order rows are trained in the other tools, and here.
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
using testing::IsEmpty;
using testing::StartsWith;

const std::string kOne =
    "base_model: m\nadapter: lora\ndatasets: [{path: r.jsonl, type: completion}]\n";
const std::string kTwo =
    "base_model: m\nadapter: lora\n"
    "datasets: [{path: r.jsonl, type: completion}, {path: s.jsonl, type: completion}]\n";
const std::string kTrl =
    "model_name_or_path: m\nuse_peft: true\ndataset_name: r.jsonl\nmax_steps: 1\n";

bool shuffles(const ImportedRecipe& recipe) {
  EXPECT_THAT(recipe.missing, IsEmpty());
  return parse_recipe(recipe.text, "r.yaml", "/base").data.shuffle;
}

TEST(ImportRowOrder, AxolotlsSamplerDecides) {
  const ImportedRecipe kept = imported(kOne + "shuffle_merged_datasets: false\n", "axolotl");
  EXPECT_TRUE(shuffles(kept));
  EXPECT_THAT(fate_of(kept, "shuffle_merged_datasets"),
              StartsWith("without effect: rows are drawn at random in each epoch all the same"));
  EXPECT_FALSE(shuffles(imported(kOne + "curriculum_sampling: true\n", "axolotl")));
  EXPECT_FALSE(shuffles(
      imported(kTwo + "shuffle_merged_datasets: false\ncurriculum_sampling: true\n", "axolotl")));
  EXPECT_FALSE(shuffles(
      imported(kTwo + "curriculum_sampling: true\nshuffle_merged_datasets: false\n", "axolotl")));
}

TEST(ImportRowOrder, AnOrderThatIsNotHadIsRefused) {
  const ImportedRecipe merged = imported(kTwo + "curriculum_sampling: true\n", "axolotl");
  EXPECT_TRUE(shuffles(merged));
  EXPECT_THAT(fate_of(merged, "curriculum_sampling"),
              StartsWith("refused: merged data sets are shuffled once there"));
  const ImportedRecipe pairs = imported(
      "base_model: m\nadapter: lora\nrl: dpo\ncurriculum_sampling: true\n"
      "datasets: [{path: r.jsonl, type: chatml.ultra}]\n",
      "axolotl");
  EXPECT_TRUE(shuffles(pairs));
  EXPECT_THAT(fate_of(pairs, "curriculum_sampling"), StartsWith("without effect: trainers of rl"));
}

TEST(ImportRowOrder, TrlDrawsRowsAtRandomUnlessTheyAreAStream) {
  EXPECT_TRUE(shuffles(imported(kTrl + "shuffle_dataset: false\n", "trl")));
  EXPECT_THAT(fate_of(imported(kTrl + "shuffle_dataset: false\n", "trl"), "shuffle_dataset"),
              StartsWith("without effect: rows come in random order"));
  EXPECT_FALSE(shuffles(imported(kTrl + "streaming: true\n", "trl")));
  EXPECT_FALSE(
      shuffles(imported(kTrl + "dataset_streaming: true\nshuffle_dataset: false\n", "trl")));
  EXPECT_EQ(fate_of(imported(kTrl + "streaming: true\nshuffle_dataset: true\n", "trl"),
                    "shuffle_dataset"),
            "data.shuffle_block");
}

TEST(ImportRowOrder, TransformersSampler) {
  const auto fate = [](const std::string& lines, const std::string& key) {
    return fate_of(imported(kTrl + lines, "trl"), key);
  };
  EXPECT_THAT(fate("group_by_length: true\n", "group_by_length"),
              StartsWith("refused: rows come in random order"));
  EXPECT_THAT(fate("group_by_length: true\npacking: true\n", "group_by_length"),
              StartsWith("without effect: rows are packed"));
  EXPECT_THAT(fate("group_by_length: false\n", "group_by_length"),
              StartsWith("without effect: it is off"));
  EXPECT_EQ(fate("train_sampling_strategy: sequential\n", "train_sampling_strategy"),
            "data.shuffle");
  EXPECT_THAT(fate("train_sampling_strategy: random\n", "train_sampling_strategy"),
              StartsWith("without effect"));
  EXPECT_THAT(fate("train_sampling_strategy: group_by_length\n", "train_sampling_strategy"),
              StartsWith("refused"));
}

}  // namespace
}  // namespace qlora::recipes
