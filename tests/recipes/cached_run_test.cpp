// Whole runs whose tokenized rows lie on disk, beside the same runs with rows in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/read_file.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using testing::HasSubstr;
using testing::Not;

const std::atomic<bool> kNever{false};

// What the run says on the way.
std::string train(const Recipe& recipe) {
  testing::internal::CaptureStderr();
  finetune(recipe, kNever);
  return testing::internal::GetCapturedStderr();
}

Recipe in_memory(const TempDir& dir) {
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.train.eval_every = 3;
  recipe.train.save_total_limit = 10;
  recipe.data.cache = "false";
  return recipe;
}

Recipe on_disk(const TempDir& dir, Recipe recipe, const std::string& run) {
  recipe.data.cache = "true";
  recipe.data.cache_dir = dir / "cache";
  recipe.output.dir = dir / run;
  return recipe;
}

void expect_same_end(const Recipe& one, const Recipe& other) {
  for (const char* file :
       {"/adapter/adapter_model.safetensors", "/checkpoint-000006/optimizer.safetensors"})
    EXPECT_EQ(io::read_bytes(one.output.dir + file), io::read_bytes(other.output.dir + file))
        << file;
}

// The run of a recipe as a kill would leave it after step 2, in another directory.
void copy_killed(const std::string& run, const std::string& copy) {
  fs::copy(run, copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(copy + "/adapter");
  fs::remove(copy + "/best");
  for (const char* later : {"/checkpoint-000003", "/checkpoint-000004", "/checkpoint-000006"})
    fs::remove_all(copy + later);
}

TEST(CachedRun, TheAdapterIsTheSameWithTheCacheAndWithout) {
  const TempDir dir;
  const Recipe plain = in_memory(dir);
  EXPECT_THAT(train(plain), Not(HasSubstr("data cache")));
  const Recipe made = on_disk(dir, plain, "made"), taken = on_disk(dir, plain, "taken");
  EXPECT_THAT(train(made), HasSubstr("data cache made: "));
  EXPECT_THAT(train(taken), HasSubstr("data cache hit: "));
  expect_same_end(plain, made);
  expect_same_end(plain, taken);
}

TEST(CachedRun, ARunGoesOnWithTheCacheOrWithoutToTheSameBytes) {
  const TempDir dir;
  const Recipe plain = in_memory(dir);
  train(plain);
  const Recipe first = on_disk(dir, plain, "first"), second = on_disk(dir, plain, "second");
  for (const Recipe& recipe : {first, second}) {
    copy_killed(plain.output.dir, recipe.output.dir);
    EXPECT_THAT(train(recipe), HasSubstr("(step 2)"));
    expect_same_end(plain, recipe);
  }
  Recipe without = in_memory(dir);
  without.output.dir = dir / "without";
  copy_killed(first.output.dir, without.output.dir);
  EXPECT_THAT(train(without), HasSubstr("(step 2)"));
  expect_same_end(plain, without);
}

TEST(CachedRun, PairsOfAnswersAreComparedAsWithout) {
  const TempDir dir;
  std::ofstream rows(dir / "pairs.jsonl");
  for (int i = 0; i < 9; ++i)
    rows << R"({"prompt": [{"role": "user", "content": "say )" << i
         << R"("}], "chosen": [{"role": "assistant", "content": ")" << i * i
         << R"("}], "rejected": [{"role": "assistant", "content": "no"}]})"
         << "\n";
  rows.close();
  Recipe plain = in_memory(dir);
  plain.data.train = {{dir / "pairs.jsonl", "preference", {}}};
  plain.data.eval = {};
  plain.data.eval_fraction = 0.3;
  plain.train.objective = "dpo";
  train(plain);
  const Recipe made = on_disk(dir, plain, "made"), taken = on_disk(dir, plain, "taken");
  EXPECT_THAT(train(made), HasSubstr("data cache made: "));
  EXPECT_THAT(train(taken), HasSubstr("data cache hit: "));
  for (const Recipe& recipe : {made, taken}) {
    expect_same_end(plain, recipe);
    EXPECT_EQ(io::read_bytes(plain.output.dir + "/reference.json"),
              io::read_bytes(recipe.output.dir + "/reference.json"));
  }
}

}  // namespace
}  // namespace qlora::recipes
