// Runs whose files lie at paths that are no UTF-8.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "base/log.h"
#include "lora/adapter_base.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

TEST(PathsThatAreNoUtf8, AreKeptToTheByteByARunThatGoesOnAndIsExported) {
  const test::TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  const std::string model = dir / "mod\xff\xfe", rows = dir / "\xffrows.jsonl";
  fs::rename(recipe.model.path, model);
  fs::rename(recipe.data.train[0].path, rows);
  recipe.model.path = model;
  recipe.data.train[0].path = rows;
  recipe.output.dir = dir / "run\xff";
  recipe.output.save_base = true;
  recipe.train.max_steps = 2;
  recipe.train.save_every = 1;
  const std::atomic<bool> never{false};
  ASSERT_EQ(finetune(recipe, never), trainer::Outcome::kFinished);
  const std::string adapter = recipe.output.dir + "/adapter/adapter_model.safetensors";
  const std::string trained = test::read_file(adapter);
  ASSERT_FALSE(trained.empty());

  const Recipe kept = read_run_recipe(recipe.output.dir);
  EXPECT_EQ(kept.model.path, model);
  EXPECT_EQ(kept.data.train[0].path, rows);
  fs::remove_all(recipe.output.dir + "/adapter");
  fs::remove_all(recipe.output.dir + "/checkpoint-000002");
  ASSERT_EQ(finetune(kept, never), trainer::Outcome::kFinished);
  EXPECT_EQ(test::read_file(adapter), trained);

  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  TrainedModel opened = open_model(choice);
  const std::string exported = dir / "exported\xff";
  EXPECT_NO_THROW(export_model(opened, {.format = "adapter", .output = exported}));
  EXPECT_TRUE(lora::read_adapter_base(exported).has_value());
  log::close_file();
}

}  // namespace
}  // namespace qlora::recipes
