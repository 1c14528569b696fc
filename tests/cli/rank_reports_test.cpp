#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/support/ranks.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
namespace fs = std::filesystem;

// How each of two ranks of `qlora train` ends, by its number.
std::vector<Finished> train_on_two(const TempDir& dir, const recipes::Recipe& recipe,
                                   const std::vector<std::string>& more = {}) {
  const std::string file = write_recipe_file(dir, recipe);
  const std::string port = std::to_string(free_port());
  std::vector<std::unique_ptr<ChildProcess>> ranks;
  for (const char* rank : {"0", "1"}) {
    const std::string directory = dir / ("rank" + std::string(rank));
    fs::create_directories(directory);
    std::vector<std::string> arguments = {"RANK=" + std::string(rank), "WORLD_SIZE=2",
                                          "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + port,
                                          QLORA_PROGRAM};
    arguments.insert(arguments.end(), {"train", file});
    arguments.insert(arguments.end(), more.begin(), more.end());
    ranks.push_back(std::make_unique<ChildProcess>("/usr/bin/env", arguments, directory));
  }
  std::vector<Finished> ended;
  for (const auto& rank : ranks) ended.push_back(rank->wait());
  return ended;
}

recipes::Recipe small_recipe(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.threads = 1;
  return recipe;
}

int64_t bytes_for(const nlohmann::json& memory, const std::string& purpose) {
  int64_t bytes = 0;
  for (const auto& line : memory["lines"])
    if (line["purpose"] == purpose) bytes += line["bytes"].get<int64_t>();
  return bytes;
}

TEST(RankReports, TheFirstRankAloneReportsWithWhatTheRanksSumsTake) {
  const TempDir dir;
  const auto ended = train_on_two(dir, small_recipe(dir), {"--profile", "3"});
  ASSERT_EQ(ended[0].exit_code, 0) << ended[0].err;
  ASSERT_EQ(ended[1].exit_code, 0) << ended[1].err;
  EXPECT_THAT(ended[0].err,
              AllOf(HasSubstr("estimate: "), HasSubstr(" MB predicted, "),
                    HasSubstr("\ncommunication "), HasSubstr("waiting for other ranks: ")));
  for (const char* part : {"estimate: ", "predicted", "communication", "step "})
    EXPECT_THAT(ended[1].err, Not(HasSubstr(part)));
  EXPECT_THAT(ended[1].out, IsEmpty());
  EXPECT_TRUE(fs::exists(dir / "run/profile.json"));
  const auto memory = nlohmann::json::parse(read_file(dir / "run/memory.json"));
  EXPECT_EQ(bytes_for(memory, "buffers of the ranks' sums"),
            2 * bytes_for(memory, "adapters' gradients (float32)"));
  // Each rank has one of the two micro-batches.
  EXPECT_EQ(bytes_for(memory, "gradients of earlier micro-batches"), 0);
}

TEST(RankReports, OneRankHasNoSumsToReport) {
  const TempDir dir;
  const std::string recipe = write_recipe_file(dir, small_recipe(dir));
  const Finished done = run_qlora(dir, {"train", recipe, "--profile", "3"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, Not(HasSubstr("communication")));
  const auto memory = nlohmann::json::parse(read_file(dir / "run/memory.json"));
  EXPECT_EQ(bytes_for(memory, "buffers of the ranks' sums"), 0);
  EXPECT_EQ(bytes_for(memory, "gradients of earlier micro-batches"),
            bytes_for(memory, "adapters' gradients (float32)"));
}

TEST(RankReports, WhatTheFirstRankFailsOfBeforeItsFirstStepIsSaidByTheOthersToo) {
  const TempDir dir;
  dir.write("run/notes.txt", "no run");
  const auto ended = train_on_two(dir, small_recipe(dir));
  EXPECT_EQ(ended[0].exit_code, 2);
  EXPECT_THAT(ended[0].err, HasSubstr("is not empty and holds no run"));
  EXPECT_EQ(ended[1].exit_code, 1);
  EXPECT_THAT(ended[1].err,
              AllOf(HasSubstr("rank 0 failed: output.dir: "),
                    HasSubstr("is not empty and holds no run"), Not(HasSubstr("gone or silent"))));
}

}  // namespace
}  // namespace qlora::test
