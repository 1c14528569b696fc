// Whole runs that read the first rows alone, beside the same runs that read all of them.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <string>

#include "base/error.h"
#include "io/read_file.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kEndsEarly = "any behind them were not read";

const std::atomic<bool> kNever{false};

// What the run says on the way.
std::string train(const Recipe& recipe) {
  testing::internal::CaptureStderr();
  finetune(recipe, kNever);
  return testing::internal::GetCapturedStderr();
}

// Of these rows one in 400 is long enough to be trained, 11 of the first 4096 and 50 in all.
void write_rows(const std::string& path, const std::string& word) {
  std::ofstream file(path);
  for (int i = 0; i < 20000; ++i)
    file << fmt::format(R"({{"messages": [{{"role": "user", "content": "{}"}}, )"
                        R"({{"role": "assistant", "content": "{}{}"}}]}})"
                        "\n",
                        i, i, i % 400 == 0 ? word : "");
}

// A step has two rows.
Recipe in_blocks(const TempDir& dir) {
  Recipe recipe = test::tiny_recipe(dir.path());
  write_rows(dir / "rows.jsonl", std::string(40, 'x'));
  recipe.data.train[0].min_tokens = 50;
  recipe.data.eval = {};
  recipe.data.packing = false;
  recipe.data.shuffle_block = 3;
  recipe.optim.schedule = "constant";
  recipe.train.on_extend = "continue";
  recipe.output.dir = dir / "first";
  return recipe;
}

// The same; of the rows that are trained none repeats another.
Recipe that_reads_all(Recipe recipe, const TempDir& dir) {
  recipe.data.deduplicate = true;
  recipe.output.dir = dir / "all";
  return recipe;
}

void expect_same_end(const Recipe& one, const Recipe& other) {
  for (const std::string& file :
       {std::string("/adapter/adapter_model.safetensors"),
        fmt::format("/checkpoint-{:06}/optimizer.safetensors", one.train.max_steps)})
    EXPECT_EQ(io::read_bytes(one.output.dir + file), io::read_bytes(other.output.dir + file))
        << file;
}

TEST(FirstRowsRun, IsTheRunThatReadsAllRowsAlsoWhereItGoesOn) {
  const TempDir dir;
  Recipe first = in_blocks(dir), all = that_reads_all(first, dir);
  const auto train_both = [&](int64_t steps) {
    SCOPED_TRACE(steps);
    first.train.max_steps = all.train.max_steps = steps;
    EXPECT_THAT(train(all), Not(HasSubstr(kEndsEarly)));
    const std::string said = train(first);
    expect_same_end(first, all);
    return said;
  };
  EXPECT_THAT(train_both(2), AllOf(HasSubstr("4096 rows"), HasSubstr(kEndsEarly)));
  EXPECT_THAT(train_both(8), AllOf(HasSubstr("8192 rows"), HasSubstr(kEndsEarly)));
  EXPECT_THAT(
      io::read_bytes(first.output.dir + "/metrics.jsonl"),
      AllOf(HasSubstr("\"epoch\":0.0,"), Not(testing::ContainsRegex("\"epoch\":0\\.0*[1-9]"))));
  // 25 steps are an epoch.
  for (const int64_t steps : {40, 42})
    EXPECT_THAT(train_both(steps), AllOf(HasSubstr("20000 rows"), Not(HasSubstr(kEndsEarly))));
}

TEST(FirstRowsRun, RowsThatChangedAreRefusedAndOnesBehindThemAreNotLookedAt) {
  const TempDir dir;
  Recipe recipe = in_blocks(dir);
  recipe.train.max_steps = 2;
  train(recipe);
  std::ofstream(dir / "rows.jsonl", std::ios::app) << "no row\n";
  recipe.train.max_steps = 3;
  EXPECT_THAT(train(recipe), HasSubstr("going on from"));
  write_rows(dir / "rows.jsonl", std::string(40, 'y'));
  recipe.train.max_steps = 4;
  EXPECT_THROW(finetune(recipe, kNever), ConfigError);
}

}  // namespace
}  // namespace qlora::recipes
