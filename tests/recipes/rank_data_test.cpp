// The tokenized rows of a run of several ranks: one makes what the cache lacks, the others find it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "base/stopwatch.h"
#include "recipes/before_loading.h"
#include "recipes/run/training_data.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using distributed::Group;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

// The same recipe on all ranks, over files that the first has written; `row` stands behind the
// rows that are looked at before anything is read.
Recipe recipe_in(const test::TempDir& dir, Group& group, const std::string& cache,
                 const std::string& row = "") {
  std::string text;
  if (group.leads()) {
    Recipe recipe = test::tiny_recipe(dir.path());
    test::write_tiny_rows(dir / "rows.jsonl", 100);
    dir.write("rows.jsonl", test::read_file(dir / "rows.jsonl") + row);
    recipe.data.cache = cache;
    recipe.data.cache_dir = dir / "cache";
    text = write_recipe(recipe);
  }
  return parse_recipe(group.broadcast(text), "recipe.yaml", dir.path(), {});
}

data::PreparedData read(const Recipe& recipe, Group& group) {
  return read_data(recipe, check_before_loading(recipe), trainer::TrainState(), group);
}

TEST(RankData, OneRankMakesTheCacheAndTheOthersFindIt) {
  const test::TempDir dir;
  const auto codes = test::run_ranks(3, [&dir](Group& group) {
    const Recipe recipe = recipe_in(dir, group, "true");
    for (const bool is_there : {false, true}) {
      const data::PreparedData data = read(recipe, group);
      const bool makes = group.leads() && !is_there;
      EXPECT_THAT(data.cache_notes, SizeIs(2));  // of the rows to train, and to evaluate
      EXPECT_THAT(data.cache_notes,
                  Each(StartsWith(makes ? "data cache made: " : "data cache hit: ")))
          << group.rank();
      group.require_same("rows", data.fingerprint());
    }
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
}

TEST(RankData, RowsInMemoryAreReadByAllAtOnce) {
  const test::TempDir dir;
  const auto codes = test::run_ranks(2, [&dir](Group& group) {
    const data::PreparedData data = read(recipe_in(dir, group, "false"), group);
    EXPECT_THAT(data.cache_notes, IsEmpty());
    group.require_same("rows", data.fingerprint());
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
  EXPECT_FALSE(std::filesystem::exists(dir / "cache"));
}

TEST(RankData, WhatTheMakerFailsOfTheOthersHearOf) {
  const test::TempDir dir;
  const auto codes = test::run_ranks(2, [&dir](Group& group) {
    const Recipe recipe = recipe_in(dir, group, "true", "{\"messages\": 5}\n");
    const Stopwatch watch;
    if (group.leads()) {
      try {
        read(recipe, group);
        ADD_FAILURE() << "the row was taken";
      } catch (const FormatError& error) {
        group.fail_together(error.what());
      }
    } else {
      EXPECT_THAT([&] { read(recipe, group); },
                  ThrowsMessage<distributed::LostRank>(HasSubstr("rank 0 failed: ")));
    }
    EXPECT_LT(watch.seconds(), 20);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(RankData, AMakerThatIsSilentIsGivenUpAfterThePatience) {
  const test::TempDir dir;
  const auto codes = test::run_ranks(
      2,
      [&dir](Group& group) {
        const Recipe recipe = recipe_in(dir, group, "true");
        if (group.leads()) {
          group.any(false);  // as if it would read, and hung
          sleep(8);
          _exit(0);
        }
        EXPECT_THAT([&] { read(recipe, group); },
                    ThrowsMessage<distributed::LostRank>(HasSubstr("gone or silent")));
        _exit(testing::Test::HasFailure() ? 1 : 0);
      },
      std::chrono::seconds(5));
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

}  // namespace
}  // namespace qlora::recipes
