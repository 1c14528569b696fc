#include "recipes/ready_recipes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {

TEST(ReadyRecipes, EachIsReadWithoutAComplaintAndExplainsItself) {
  const test::TempDir dir;
  ASSERT_GE(ready_recipes().size(), 7u);
  for (const ReadyRecipe& ready : ready_recipes()) {
    const Recipe recipe = read_recipe(dir.write(ready.name + ".yaml", ready.text));
    EXPECT_FALSE(recipe.data.train.empty()) << ready.name;
    EXPECT_TRUE(ready.text.starts_with("# ")) << ready.name;
    EXPECT_GT(ready.summary().size(), 20u) << ready.name;
  }
}

TEST(ReadyRecipes, EachKindOfModelThatPeopleAskAboutHasOne) {
  const test::TempDir dir;
  for (const char* model : {"Qwen3", "gemma-3", "Mistral-7B", "phi-4", "gpt-oss-20b", "opt-",
                            "bloom-", "gpt2", "flan-t5", "Llama-3.1-70B", "Mixtral-8x7B"})
    EXPECT_TRUE(std::ranges::any_of(ready_recipes(), [&](const ReadyRecipe& ready) {
      const Recipe recipe = read_recipe(dir.write(ready.name + ".yaml", ready.text));
      return recipe.model.path.find(model) != std::string::npos;
    })) << model;
}

TEST(ReadyRecipes, TheThirteenBillionOneKeepsItsPromise) {
  const test::TempDir dir;
  const ReadyRecipe& ready = ready_recipe("llama-13b-16gb");
  const Recipe recipe = read_recipe(dir.write("recipe.yaml", ready.text));
  EXPECT_EQ(recipe.data.sequence_length, 1024);
  EXPECT_EQ(recipe.train.micro_batch_size, 1);
  EXPECT_EQ(recipe.train.gradient_accumulation_steps, 4);
}

TEST(ReadyRecipes, AnUnknownNameListsTheKnownOnes) {
  try {
    ready_recipe("llama-9b");
    FAIL() << "found";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("llama-8b-24gb"), std::string::npos);
  }
}

}  // namespace
}  // namespace qlora::recipes
