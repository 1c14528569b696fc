// Where weights and tokenized rows lie, and how far rows are read, in the files of other tools.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "recipes/import/import_recipe.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::outcome_of;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kAxolotl = R"(
base_model: org/model
adapter: qlora
datasets:
  - path: rows.jsonl
    type: chat_template
micro_batch_size: 1
num_epochs: 1
)";

constexpr const char* kLlamaFactory = R"(
model_name_or_path: org/model
finetuning_type: lora
dataset: mine
max_steps: 10
)";

TEST(ImportPlaces, MemoryOfDevicesPlacesTheBlocks) {
  for (const std::string map : {"", "device_map: auto\n"}) {
    const ImportedRecipe recipe =
        imported(std::string(kAxolotl) + map + "max_memory: {0: 20GiB, cpu: 30GiB}\n", "axolotl");
    EXPECT_THAT(recipe.missing, IsEmpty());
    EXPECT_THAT(recipe.text, HasSubstr("20GiB"));
    EXPECT_THAT(recipe.text, HasSubstr("cuda:0"));
    EXPECT_THAT(recipe.text, HasSubstr("device_map: auto"));
    EXPECT_EQ(outcome_of(recipe, "max_memory")->here, "model.max_memory");
  }
}

TEST(ImportPlaces, MemoryOfDevicesIsWithoutEffectBesideAnotherMap) {
  const ImportedRecipe recipe =
      imported(std::string(kAxolotl) + "device_map: cpu\nmax_memory: {cpu: 30GiB}\n", "axolotl");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_THAT(recipe.text, Not(HasSubstr("30GiB")));
  EXPECT_EQ(outcome_of(recipe, "max_memory")->fate, Fate::kWithoutEffect);
  EXPECT_EQ(outcome_of(imported("max_memory: {cpu: lots}\n", "trl"), "max_memory")->fate,
            Fate::kRefused);
}

TEST(ImportPlaces, TokenizedRowsAndTheShortestOfThem) {
  const ImportedRecipe recipe = imported(
      std::string(kAxolotl) + "dataset_prepared_path: prepared\nmin_sample_len: 12\n", "axolotl");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_THAT(recipe.text, HasSubstr("cache_dir: prepared"));
  EXPECT_THAT(recipe.text, HasSubstr("min_tokens: 12"));
  EXPECT_EQ(
      outcome_of(imported(std::string(kLlamaFactory) + "tokenized_path: tokens\n", "llama-factory"),
                 "tokenized_path")
          ->here,
      "data.cache_dir");
}

TEST(ImportPlaces, AStreamIsShuffledInBlocks) {
  const auto text_with = [](const std::string& lines) {
    return imported(std::string(kLlamaFactory) + lines, "llama-factory").text;
  };
  EXPECT_THAT(text_with("streaming: true\n"), HasSubstr("shuffle_block: 16384"));
  EXPECT_THAT(text_with("streaming: true\nbuffer_size: 500\n"), HasSubstr("shuffle_block: 500"));
  for (const char* other :
       {"streaming: false\nbuffer_size: 500\n", "streaming: true\ndisable_shuffling: true\n"})
    EXPECT_THAT(text_with(other), Not(HasSubstr("shuffle_block"))) << other;
}

}  // namespace
}  // namespace qlora::recipes
