// Runs that go on from an adapter: whose options count, and what becomes of them when it is gone.
#include "recipes/given_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "recipes/models/trained_model.h"
#include "recipes/options_from_files.h"
#include "recipes/qlora_finetune.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

const std::atomic<bool> kNever{false};

// Rank 4, alpha 8, dropout 0.1, of all linear layers.
class GivenAdapter : public testing::Test {
 protected:
  void SetUp() override {
    Recipe first = test::tiny_recipe(dir.path());
    first.train.max_steps = 1;
    finetune(first, kNever);
    next = first;
    next.train.max_steps = 4;
    next.lora = {};
    next.lora.from_adapter = first.output.dir + "/adapter";
    next.output.dir = dir / "next";
    as_made = first;
    as_made.lora.from_adapter = next.lora.from_adapter;
    as_made.output.dir = next.output.dir;
  }

  // As it is read from a file in which every key stands.
  Recipe written(const std::vector<std::string>& overrides = {}) const {
    return parse_recipe(write_recipe(as_made), "recipe.yaml", dir.path(), overrides);
  }

  test::TempDir dir;
  Recipe next;     // says nothing of the adapter
  Recipe as_made;  // says what the recipe of the adapter said
};

TEST_F(GivenAdapter, TheRecipeThatMadeItDescribesIt) {
  Recipe recipe = written();
  adopt_adapter_options(recipe);
  EXPECT_THAT(recipe.lora.targets, testing::Contains("q_proj"));
  adopt_adapter_options(recipe);  // as a second look does
  EXPECT_EQ(recipe.lora.rank, 4);
}

TEST_F(GivenAdapter, AKeyThatAsksForAnotherFormIsRefusedWithBothValues) {
  const std::vector<std::pair<std::string, std::string>> wishes = {
      {"lora.rank=8", "lora.rank: 8, in the adapter 4"},
      {"lora.alpha=16", "lora.alpha: 16, in the adapter 8"},
      {"lora.targets=[q_proj]", "lora.targets: "},
      {"lora.exclude_modules=[q_proj]", "lora.exclude_modules: "},
      {"lora.layers_to_transform=[0]", "lora.layers_to_transform: [0], in the adapter []"},
      {"lora.rank_pattern={q_proj: 2}", "lora.rank_pattern: "},
      {"lora.alpha_pattern={q_proj: 2}", "lora.alpha_pattern: "},
      {"lora.use_dora=true", "lora.use_dora: true, in the adapter false"},
      {"lora.use_rslora=true", "lora.use_rslora: true, in the adapter false"},
      {"lora.bias=all", "lora.bias: "},
      {"lora.modules_to_save=[norm]", "lora.modules_to_save: "},
      {"lora.trainable_token_indices=[5]", "lora.trainable_token_indices: [5], in the adapter []"},
      {"lora.trainable_tokens=[a]", "lora.trainable_token_indices: "},
      {"lora.init=gaussian", "lora.init: "}};
  for (const auto& [wish, difference] : wishes)
    EXPECT_THAT(
        [&] {
          Recipe recipe = written({wish});
          adopt_adapter_options(recipe);
        },
        ThrowsMessage<ConfigError>(
            AllOf(HasSubstr("lora.from_adapter"), HasSubstr("\n  " + difference))))
        << wish;
}

TEST_F(GivenAdapter, OnlyWhatDiffersIsNamed) {
  Recipe recipe = written({"lora.rank=8"});
  EXPECT_THAT([&] { adopt_adapter_options(recipe); },
              ThrowsMessage<ConfigError>(
                  AllOf(Not(HasSubstr("lora.alpha")), Not(HasSubstr("lora.targets")))));
}

TEST_F(GivenAdapter, WhatTheRecipeLeavesOutIsTheAdaptersAndDropoutIsTheRecipesWhereItSaysIt) {
  Recipe recipe = next;
  adopt_adapter_options(recipe);
  EXPECT_EQ(recipe.lora.rank, 4);
  EXPECT_EQ(recipe.lora.alpha, 8);
  EXPECT_EQ(recipe.lora.dropout, 0.1);
  recipe = written({"lora.dropout=0.3"});
  adopt_adapter_options(recipe);
  EXPECT_EQ(recipe.lora.rank, 4);
  EXPECT_EQ(recipe.lora.dropout, 0.3);
}

TEST_F(GivenAdapter, OnceARunHasACheckpointItGoesOnWithoutIt) {
  finetune(next, kNever);
  const std::string weights = next.output.dir + "/adapter/adapter_model.safetensors";
  const std::string unbroken = test::read_file(weights);
  fs::remove_all(next.lora.from_adapter);
  ModelChoice choice;
  choice.run_dir = next.output.dir;
  EXPECT_EQ(open_model(choice).recipe.lora.rank, 4);
  fs::remove_all(next.output.dir + "/adapter");
  fs::remove_all(next.output.dir + "/checkpoint-000004");
  ASSERT_EQ(finetune(next, kNever), trainer::Outcome::kFinished);
  EXPECT_EQ(test::read_file(weights), unbroken);
  Recipe anew = next;
  anew.output.dir = dir / "anew";
  EXPECT_THAT([&] { finetune(anew, kNever); },
              ThrowsMessage<ConfigError>(HasSubstr("adapter_config.json")));
}

class TemplateOfGivenAdapter : public GivenAdapter {
 protected:
  void SetUp() override {
    GivenAdapter::SetUp();
    std::ofstream(next.lora.from_adapter + "/chat_template.jinja") << kTemplate;
  }
  std::string adopted(Recipe recipe) const {
    adopt_adapter_options(recipe);
    return recipe.data.chat_template;
  }

  const std::string kTemplate =
      "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>"
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}";
};

TEST_F(TemplateOfGivenAdapter, ItIsTheRecipesThatSaysNothingOfOne) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(adopted(next), kTemplate);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("the chat template of " + next.lora.from_adapter));
  Recipe told = next;
  told.data.chat_template = "chatml";
  EXPECT_EQ(adopted(told), "chatml");
  EXPECT_EQ(adopted(written()), "");  // an empty one that stands there: the model's
  Recipe alpaca = next;
  alpaca.data.train[0].format = alpaca.data.eval[0].format = "alpaca";
  alpaca.data.prompt_style = "alpaca";
  EXPECT_EQ(adopted(alpaca), "");
  fs::remove(next.lora.from_adapter + "/chat_template.jinja");
  EXPECT_EQ(adopted(next), "");  // the model's own
}

TEST_F(TemplateOfGivenAdapter, TheRunHasItToItsEndAndInItsAdapter) {
  finetune(next, kNever);
  EXPECT_EQ(test::read_file(next.output.dir + "/adapter/chat_template.jinja"), kTemplate);
  ModelChoice choice;
  choice.run_dir = next.output.dir;
  EXPECT_EQ(open_model(choice).base.chat_template->source(), kTemplate);
  std::ofstream(next.lora.from_adapter + "/chat_template.jinja") << "another";
  EXPECT_EQ(adopted(next), kTemplate);
  fs::remove_all(next.lora.from_adapter);
  EXPECT_EQ(adopted(next), kTemplate);
  EXPECT_EQ(finetune(next, kNever), trainer::Outcome::kFinished);
}

// One that began before adapters were asked for theirs.
TEST_F(TemplateOfGivenAdapter, ARunThatBeganWithTheModelsKeepsIt) {
  fs::remove(next.lora.from_adapter + "/chat_template.jinja");
  finetune(next, kNever);
  std::ofstream(next.lora.from_adapter + "/chat_template.jinja") << kTemplate;
  EXPECT_EQ(adopted(next), "");
  next.output.overwrite = true;
  EXPECT_EQ(adopted(next), kTemplate);
}

}  // namespace
}  // namespace qlora::recipes
