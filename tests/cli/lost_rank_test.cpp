// Ranks that are killed, stopped or diverge in the middle of a run: the others end too, say why,
// and what they leave goes on to the bytes of the unbroken run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "base/stopwatch.h"
#include "tests/cli/rank_processes.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kGone = "another rank is gone or silent";
// A closed connection is noticed within a second; the rest is for a busy machine. Ranks that waited
// in vain would take half an hour.
constexpr double kSoonSeconds = 60;

recipes::Recipe long_recipe(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.sequence_length = 64;
  recipe.train.gradient_accumulation_steps = 4;
  recipe.train.threads = 1;
  recipe.train.max_steps = 100;
  recipe.train.save_every = 20;
  return recipe;
}

Arguments train(const TempDir& dir, const std::string& run, const Arguments& settings = {}) {
  Arguments arguments = {"train", dir / "recipe.yaml", "--set", "output.dir=" + dir / run};
  for (const std::string& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
  return arguments;
}

class LostRank : public testing::TestWithParam<int> {};

TEST_P(LostRank, EndsTheOthersAtOnceAndTheRunGoesOnFromTheLastCheckpoint) {
  const int killed = GetParam();
  const TempDir dir;
  write_recipe_file(dir, long_recipe(dir));
  const Finished unbroken = run_qlora(dir, train(dir, "unbroken"));
  ASSERT_EQ(unbroken.exit_code, 0) << unbroken.err;

  RankProcesses ranks(dir, 4, train(dir, "run"));
  ASSERT_TRUE(ranks.rank(0).wait_until([&] { return steps_logged(dir, "run") >= 25; }));
  const Stopwatch watch;
  ranks.rank(killed).send(SIGKILL);
  const std::vector<Finished> ended = ranks.wait();
  EXPECT_LT(watch.seconds(), kSoonSeconds);
  for (int rank = 0; rank < 4; ++rank) {
    const Finished& each = ended[static_cast<size_t>(rank)];
    if (rank == killed) {
      EXPECT_EQ(each.signal, SIGKILL) << each.err;
      continue;
    }
    EXPECT_EQ(each.exit_code, 1) << rank << ": " << each.err;
    EXPECT_THAT(each.err, AllOf(HasSubstr(kGone), HasSubstr("rank " + std::to_string(rank))));
  }
  EXPECT_FALSE(fs::exists(dir / "run/adapter"));
  EXPECT_NE(last_checkpoint(dir / "run"), "");

  const std::vector<Finished> done = run_ranks_of(dir, 2, train(dir, "run"));
  expect_exit_codes(done, 0);
  EXPECT_THAT(done[0].err, Not(HasSubstr("damaged")));
  expect_same_training(dir / "unbroken", dir / "run");
}

INSTANTIATE_TEST_SUITE_P(Killed, LostRank, testing::Values(0, 1));

// Before the first checkpoint the run begins anew.
TEST(LostRanks, AtTheFirstStepsLeaveNothingInTheWay) {
  const TempDir dir;
  recipes::Recipe recipe = long_recipe(dir);
  recipe.train.save_every = 0;
  write_recipe_file(dir, recipe);
  RankProcesses ranks(dir, 2, train(dir, "run"));
  ASSERT_TRUE(ranks.rank(0).wait_until([&] { return steps_logged(dir, "run") >= 1; }));
  ranks.rank(1).send(SIGKILL);
  EXPECT_EQ(ranks.wait()[0].exit_code, 1);
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "run")), 0);
  EXPECT_EQ(steps_logged(dir, "run"), 101);  // and an evaluation
}

TEST(LostRanks, ASilentOneIsGivenUpAfterTheRecipesTime) {
  constexpr double kPatienceSeconds = 8;  // also for ranks that come late on a busy machine
  const TempDir dir;
  recipes::Recipe recipe = long_recipe(dir);
  recipe.train.max_steps = 100000;
  recipe.train.save_every = 0;
  write_recipe_file(dir, recipe);
  RankProcesses ranks(dir, 2, train(dir, "run", {"train.rank_timeout=8"}));
  ASSERT_TRUE(ranks.rank(0).wait_until([&] { return steps_logged(dir, "run") >= 3; }));
  const Stopwatch watch;
  ranks.rank(1).send(SIGSTOP);
  const Finished waited = ranks.rank(0).wait();
  EXPECT_GT(watch.seconds(), kPatienceSeconds - 1);
  EXPECT_LT(watch.seconds(), kPatienceSeconds + kSoonSeconds);
  EXPECT_EQ(waited.exit_code, 1) << waited.err;
  EXPECT_THAT(waited.err, HasSubstr(kGone));
  // The one that was silent wakes up to nobody.
  ranks.rank(1).send(SIGCONT);
  const Finished woken = ranks.rank(1).wait();
  EXPECT_EQ(woken.exit_code, 1) << woken.err;
  EXPECT_THAT(woken.err, HasSubstr(kGone));
}

TEST(LostRanks, OneThatNeverComesIsMissedAfterTheRecipesTime) {
  const TempDir dir;
  write_recipe_file(dir, long_recipe(dir));
  const std::string port = std::to_string(free_port());
  const Finished alone =
      ChildProcess(QLORA_PROGRAM, train(dir, "run", {"train.rank_timeout=2"}), dir.path(),
                   std::nullopt, {"RANK=0", "WORLD_SIZE=2", "MASTER_PORT=" + port})
          .wait();
  EXPECT_EQ(alone.exit_code, 1) << alone.err;
  EXPECT_THAT(alone.err, AllOf(HasSubstr("MASTER_ADDR"), HasSubstr("127.0.0.1:" + port)));
}

// The second window has one micro-batch, which is rank 0's: the others learn of its loss alone.
TEST(LostRanks, ALossThatIsNotFiniteOnOneEndsAllAsADivergence) {
  const TempDir dir;
  recipes::Recipe recipe = long_recipe(dir);
  write_tiny_rows(dir / "rows.jsonl", 10);  // packed in five sequences
  recipe.optim.lr = 1e30;
  recipe.optim.schedule = "constant";
  recipe.train.save_every = 1;
  write_recipe_file(dir, recipe);
  const std::vector<Finished> ended = run_ranks_of(dir, 4, train(dir, "run"));
  expect_exit_codes(ended, 3);
  EXPECT_THAT(ended[0].err, HasSubstr("step 2: the loss"));
  EXPECT_EQ(steps_logged(dir, "run"), 1);
  EXPECT_EQ(fs::path(last_checkpoint(dir / "run")).filename(), "checkpoint-000001");
  EXPECT_FALSE(fs::exists(dir / "run/adapter"));
}

TEST(LostRanks, ALearningRateThatIsFarTooHighEndsAllAsADivergence) {
  const TempDir dir;
  recipes::Recipe recipe = long_recipe(dir);
  recipe.train.max_steps = 30;
  recipe.optim.schedule = "constant";
  recipe.optim.lr = 20;
  write_recipe_file(dir, recipe);
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "run")), 3);
}

}  // namespace
}  // namespace qlora::test
