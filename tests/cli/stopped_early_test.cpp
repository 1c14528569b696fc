// Ranks that are told to stop before the first step, some of them while they wait for others: all
// say so and end as one process does.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "tests/cli/rank_processes.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr int kInterrupted = 130;

recipes::Recipe recipe_of_ranks(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.gradient_accumulation_steps = 6;
  recipe.train.threads = 1;
  return recipe;
}

// How many lines of the system's tables of connections match.
int64_t connections(const std::string& pattern) {
  const std::regex line(pattern);
  int64_t count = 0;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    const std::string text = read_file(table);
    count += std::distance(std::sregex_iterator(text.begin(), text.end(), line), {});
  }
  return count;
}

bool is_served(int port) { return connections(fmt::format(":{:04X} [0-9A-F]+:0000 0A", port)) > 0; }
int64_t clients_of(int port) { return connections(fmt::format(" [0-9A-F]+:{:04X} 01", port)); }

// Ranks that come one by one.
class Waiting : public testing::Test {
 protected:
  Waiting() { write_recipe_file(dir, recipe_of_ranks(dir)); }

  ChildProcess& start(int rank) {
    const std::string folder = dir / fmt::format("rank{}", rank);
    fs::create_directories(folder);
    const Arguments arguments = {"train", dir / "recipe.yaml"};
    const Arguments variables = {fmt::format("RANK={}", rank), "WORLD_SIZE=3",
                                 "MASTER_ADDR=127.0.0.1", fmt::format("MASTER_PORT={}", port)};
    ranks.push_back(
        std::make_unique<ChildProcess>(QLORA_PROGRAM, arguments, folder, std::nullopt, variables));
    return *ranks.back();
  }
  static void expect_stopped(const Finished& ended, const std::string& words) {
    EXPECT_EQ(ended.exit_code, kInterrupted) << ended.err;
    EXPECT_THAT(ended.err, AllOf(HasSubstr("stopped: before the first step, " + words),
                                 HasSubstr("nothing was written"), Not(HasSubstr("error:"))));
  }

  const TempDir dir;
  const int port = free_port();
  std::vector<std::unique_ptr<ChildProcess>> ranks;
};

TEST_F(Waiting, TheOneThatIsFirstThereStops) {
  ChildProcess& first = start(0);
  ASSERT_TRUE(first.wait_until([&] { return is_served(port); }));
  first.send(SIGINT);
  expect_stopped(first.wait(), "waiting for the other ranks");
}

TEST_F(Waiting, TheOthersThatAreThereStopToo) {
  ChildProcess& first = start(0);
  ASSERT_TRUE(first.wait_until([&] { return is_served(port); }));
  ChildProcess& second = start(1);
  ASSERT_TRUE(second.wait_until([&] { return clients_of(port) >= 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // it says that it has come
  second.send(SIGTERM);
  const Finished told = first.wait(), stopped = second.wait();
  expect_stopped(stopped, "waiting for the other ranks");
  EXPECT_THAT(stopped.err, HasSubstr("rank 1: stopped"));
  expect_stopped(told, "with rank 1: waiting for the other ranks");
}

struct Stop {
  const char* name;
  int reads;                 // the rank with many rows
  std::vector<int> to_whom;  // the signal goes
};

// One of two ranks still reads its rows, as the machine with the slow disk does; the other has read
// its own and waits.
class StoppedWhileOneReads : public testing::TestWithParam<Stop> {};

TEST_P(StoppedWhileOneReads, BothSaySoAndNothingIsWritten) {
  const Stop& stop = GetParam();
  const TempDir dir;
  recipes::Recipe recipe = recipe_of_ranks(dir);
  recipe.data.train[0].path = "/proc/self/cwd/rows.jsonl";  // where the process runs
  write_recipe_file(dir, recipe);
  for (const int rank : {0, 1}) {
    fs::create_directories(dir / fmt::format("rank{}", rank));
    write_tiny_rows(dir / fmt::format("rank{}/rows.jsonl", rank), rank == stop.reads ? 100000 : 23);
  }
  RankProcesses ranks(dir, 2, {"train", dir / "recipe.yaml"});
  const std::string sign = stop.reads == 0 ? "device " : "examples";
  ASSERT_TRUE(ranks.rank(0).wait_until(
      [&] { return read_file(dir / "rank0/stderr.txt").find(sign) != std::string::npos; }));
  for (const int rank : stop.to_whom) ranks.rank(rank).send(SIGINT);
  const std::vector<Finished> ended = ranks.wait();
  expect_exit_codes(ended, kInterrupted);
  for (const Finished& rank : ended)
    EXPECT_THAT(rank.err, AllOf(HasSubstr("stopped: before the first step, "),
                                HasSubstr("tokenizing"), Not(HasSubstr("error:"))));
  EXPECT_THAT(ended[1].err, HasSubstr("rank 1: stopped"));
  EXPECT_EQ(steps_logged(dir, "run"), 0);
  EXPECT_FALSE(fs::exists(dir / "run/recipe.resolved.yaml"));
}

INSTANTIATE_TEST_SUITE_P(Stops, StoppedWhileOneReads,
                         testing::Values(Stop{"CtrlCToBothAndRank1Reads", 1, {0, 1}},
                                         Stop{"ToRank1WhichReads", 1, {1}},
                                         Stop{"ToRank0WhichReads", 0, {0}}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qlora::test
