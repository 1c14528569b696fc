// A run on several ranks is the run of one process, bit for bit, also where it is stopped and goes
// on with another number of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <sstream>
#include <string>

#include "tests/cli/rank_processes.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

// Four micro-batches a step, dropout, evaluations of several passes, 8-bit AdamW whose state does
// not fit its arena. Rows are packed in pairs: 21 make windows of four, four and three
// micro-batches.
recipes::Recipe ranks_recipe(const TempDir& dir, int rows) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  write_tiny_rows(dir / "rows.jsonl", rows);
  write_tiny_rows(dir / "eval.jsonl", 200);
  recipe.data.sequence_length = 64;
  recipe.train.gradient_accumulation_steps = 4;
  recipe.train.threads = 1;
  recipe.train.eval_every = 3;
  recipe.train.save_every = 3;
  return recipe;
}

Arguments train(const TempDir& dir, const std::string& run) {
  return {"train", dir / "recipe.yaml", "--set", "output.dir=" + dir / run};
}

// Trains the recipe on 1, 2 and 4 ranks, which must be the same. Gives what the two said.
std::vector<Finished> expect_same_on_one_two_and_four(const TempDir& dir,
                                                      const recipes::Recipe& recipe) {
  write_recipe_file(dir, recipe);
  const Finished alone = run_qlora(dir, train(dir, "alone"));
  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  const std::vector<Finished> two = run_ranks_of(dir, 2, train(dir, "two"));
  expect_exit_codes(two, 0);
  expect_same_training(dir / "alone", dir / "two");
  expect_exit_codes(run_ranks_of(dir, 4, train(dir, "four")), 0);
  expect_same_training(dir / "alone", dir / "four");
  return two;
}

class RanksRunOfRows : public testing::TestWithParam<int> {};

TEST_P(RanksRunOfRows, IsThatOfOneProcessWhateverTheLastWindowHolds) {
  const TempDir dir;
  expect_same_on_one_two_and_four(dir, ranks_recipe(dir, GetParam()));
  EXPECT_EQ(fs::read_symlink(dir / "alone/best"), fs::read_symlink(dir / "four/best"));
}

// The last window of an epoch has one, two, three micro-batches.
INSTANTIATE_TEST_SUITE_P(Rows, RanksRunOfRows, testing::Values(17, 19, 21));

TEST(RanksRun, OfUnpackedRowsAndAnOptimizerOf32Bit) {
  const TempDir dir;
  recipes::Recipe recipe = ranks_recipe(dir, 22);
  recipe.data.packing = false;
  recipe.train.micro_batch_size = 2;
  recipe.optim.name = "adamw";
  expect_same_on_one_two_and_four(dir, recipe);
}

TEST(RanksRun, ARankWithoutTheNumberOfRanksIsRefused) {
  const TempDir dir;
  write_recipe_file(dir, ranks_recipe(dir, 17));
  const Finished wrong =
      ChildProcess(QLORA_PROGRAM, train(dir, "run"), dir.path(), std::nullopt, {"RANK=1"}).wait();
  EXPECT_EQ(wrong.exit_code, 2) << wrong.err;
  EXPECT_THAT(wrong.err, HasSubstr("WORLD_SIZE"));
}

TEST(RanksRun, OnlyRankZeroTellsOfTheRun) {
  const TempDir dir;
  const std::vector<Finished> two = expect_same_on_one_two_and_four(dir, ranks_recipe(dir, 21));
  EXPECT_THAT(two[0].err, AllOf(HasSubstr("loss"), HasSubstr("finished: 6 steps")));
  EXPECT_EQ(two[1].out, "");
  // Of the rank that is asked for nothing: warnings at most, which name it.
  EXPECT_THAT(two[1].err, AllOf(Not(HasSubstr("step ")), Not(HasSubstr("finished"))));
  std::istringstream lines(two[1].err);
  for (std::string line; std::getline(lines, line);) EXPECT_THAT(line, HasSubstr("rank 1"));
  EXPECT_THAT(read_file(dir / "two/log.txt"), HasSubstr("finished: 6 steps"));
}

TEST(RanksRun, OfPairsWithAReferenceIsThatOfOneProcess) {
  const TempDir dir;
  recipes::Recipe recipe = ranks_recipe(dir, 1);
  write_tiny_pairs(dir / "pairs.jsonl", 17);
  write_tiny_pairs(dir / "held.jsonl", 40);
  recipe.data.train = {{dir / "pairs.jsonl", "preference", {}}};
  recipe.data.eval = {{dir / "held.jsonl", "preference", {}}};
  recipe.train.objective = "dpo";
  write_recipe_file(dir, recipe);
  const Finished alone = run_qlora(dir, train(dir, "alone"));
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "two")), 0);
  expect_same_training(dir / "alone", dir / "two");
  EXPECT_EQ(read_file(dir / "alone/reference.json"), read_file(dir / "two/reference.json"));
}

TEST(RanksRun, AFinishedRunIsLeftAsItIsByAllRanks) {
  const TempDir dir;
  write_recipe_file(dir, ranks_recipe(dir, 17));
  ASSERT_EQ(run_qlora(dir, train(dir, "run")).exit_code, 0);
  const std::string metrics = read_file(dir / "run/metrics.jsonl");
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "run")), 0);
  EXPECT_EQ(read_file(dir / "run/metrics.jsonl"), metrics);
}

struct Stop {
  const char* name;
  int ranks, signalled, signal;
  int ranks_that_go_on;
};

class StoppedRanks : public testing::TestWithParam<Stop> {};

TEST_P(StoppedRanks, AllSaveOneStepAndGoOnToTheBytesOfTheUnbrokenRun) {
  const Stop& stop = GetParam();
  const TempDir dir;
  recipes::Recipe recipe = ranks_recipe(dir, 21);
  recipe.train.max_steps = 100;  // long enough to be stopped on its way
  recipe.train.eval_every = recipe.train.save_every = 50;
  write_recipe_file(dir, recipe);
  const Finished unbroken = run_qlora(dir, train(dir, "unbroken"));
  ASSERT_EQ(unbroken.exit_code, 0) << unbroken.err;

  RankProcesses ranks(dir, stop.ranks, train(dir, "stopped"));
  EXPECT_TRUE(ranks.rank(0).wait_until([&] { return steps_logged(dir, "stopped") >= 7; }));
  ranks.rank(stop.signalled).send(stop.signal);
  const std::vector<Finished> stopped = ranks.wait();
  expect_exit_codes(stopped, 130);
  EXPECT_THAT(stopped[0].err, HasSubstr("qlora resume"));
  EXPECT_FALSE(fs::exists(dir / "stopped/adapter"));
  EXPECT_NE(last_checkpoint(dir / "stopped"), "");

  const Arguments resume = {"resume", dir / "stopped"};
  if (stop.ranks_that_go_on == 1) {
    const Finished done = run_qlora(dir, resume);
    EXPECT_EQ(done.exit_code, 0) << done.err;
  } else {
    expect_exit_codes(run_ranks_of(dir, stop.ranks_that_go_on, resume), 0);
  }
  expect_same_training(dir / "unbroken", dir / "stopped");
}

INSTANTIATE_TEST_SUITE_P(Stops, StoppedRanks,
                         testing::Values(Stop{"TermToRank1Of2ThenOn4", 2, 1, SIGTERM, 4},
                                         Stop{"Usr1ToRank3Of4ThenOn1", 4, 3, SIGUSR1, 1},
                                         Stop{"CtrlCToRank0Of2ThenOn2", 2, 0, SIGINT, 2}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RanksRun, ARunOfOneProcessGoesOnWithTwo) {
  const TempDir dir;
  recipes::Recipe recipe = ranks_recipe(dir, 21);
  recipe.train.max_steps = 100;
  recipe.train.eval_every = recipe.train.save_every = 50;
  write_recipe_file(dir, recipe);
  ASSERT_EQ(run_qlora(dir, train(dir, "unbroken")).exit_code, 0);
  ChildProcess process(QLORA_PROGRAM, train(dir, "stopped"), dir.path());
  EXPECT_TRUE(process.wait_until([&] { return steps_logged(dir, "stopped") >= 7; }));
  process.send(SIGUSR1);
  EXPECT_EQ(process.wait().exit_code, 130);
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "stopped")), 0);
  expect_same_training(dir / "unbroken", dir / "stopped");
}

TEST(RanksRun, StepsThatCannotBeDividedAreRefusedOnEveryRank) {
  const TempDir dir;
  write_recipe_file(dir, ranks_recipe(dir, 17));
  const std::vector<Finished> refused = run_ranks_of(dir, 3, train(dir, "run"));
  expect_exit_codes(refused, 2);
  for (const Finished& rank : refused)
    EXPECT_THAT(rank.err, AllOf(HasSubstr("train.gradient_accumulation_steps"), HasSubstr("3")));
  EXPECT_EQ(last_checkpoint(dir.path()), "");
}

// What differs between the ranks of a run that is not to begin. Each rank sees a model and rows of
// its own under one path, as machines do.
class RanksThatDiffer : public testing::Test {
 protected:
  RanksThatDiffer() {
    recipes::Recipe recipe = ranks_recipe(dir, 17);
    for (const char* rank : {"rank0", "rank1"}) {
      fs::create_directories(dir / rank);
      fs::copy(dir / "model", dir / rank + "/model", fs::copy_options::recursive);
      for (const std::string rows : {"/rows.jsonl", "/eval.jsonl"})
        fs::copy(dir.path() + rows, dir / rank + rows);
    }
    recipe.model.path = "/proc/self/cwd/model";  // where the process runs
    recipe.data.train[0].path = "/proc/self/cwd/rows.jsonl";
    recipe.data.eval[0].path = "/proc/self/cwd/eval.jsonl";
    write_recipe_file(dir, recipe);
  }

  void expect_refused_for(const std::string& what, const Arguments& more_of_rank_one = {}) {
    Arguments other = train(dir, "run");
    other.insert(other.end(), more_of_rank_one.begin(), more_of_rank_one.end());
    const std::vector<Finished> refused =
        RankProcesses(dir, std::vector<Arguments>{train(dir, "run"), other}).wait();
    expect_exit_codes(refused, 2);
    for (const Finished& rank : refused)
      EXPECT_THAT(rank.err, ContainsRegex("agree on the .*" + what + ".*: rank 1 has"));
    EXPECT_FALSE(fs::exists(dir / "run/metrics.jsonl"));
  }
  // One letter of a file of rank 1's.
  void change_at(const std::string& name, size_t place) {
    std::string bytes = read_file(dir / name);
    ASSERT_LT(place, bytes.size());
    bytes[place] = static_cast<char>(bytes[place] ^ 1);
    dir.write(name, bytes);
  }
  void change_first_number(const std::string& name) {
    const size_t said = read_file(dir / name).find("say ");
    ASSERT_NE(said, std::string::npos);
    change_at(name, said + 4);
  }

  TempDir dir;
};

TEST_F(RanksThatDiffer, ByNothingTrain) {
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "run")), 0);
}

TEST_F(RanksThatDiffer, InTheRecipeAreNamed) {
  expect_refused_for("recipe", {"--set", "optim.lr=1e-4"});
}

TEST_F(RanksThatDiffer, InTheBaseAreNamed) {
  const std::string weights = "rank1/model/model.safetensors";
  change_at(weights, fs::file_size(dir / weights) - 2);  // the low byte of the last weight
  expect_refused_for("base");
}

TEST_F(RanksThatDiffer, InTheRowsAreNamed) {
  change_first_number("rank1/rows.jsonl");
  expect_refused_for("(data|rows)");
}

TEST_F(RanksThatDiffer, InTheHeldOutRowsAreNamed) {
  change_first_number("rank1/eval.jsonl");
  expect_refused_for("(data|rows)");
}

// What only rank 0 looks at ends the others too, at once.
TEST_F(RanksThatDiffer, FromTheRunThatIsThereAreRefused) {
  expect_exit_codes(run_ranks_of(dir, 2, train(dir, "run")), 0);
  Arguments changed = train(dir, "run");
  changed.insert(changed.end(), {"--set", "optim.lr=1e-4"});
  const std::vector<Finished> refused = run_ranks_of(dir, 2, changed);
  EXPECT_EQ(refused[0].exit_code, 2) << refused[0].err;
  EXPECT_THAT(refused[0].err, HasSubstr("optim.lr"));
  EXPECT_THAT(refused[1].exit_code, testing::AnyOf(1, 2)) << refused[1].err;
}

}  // namespace
}  // namespace qlora::test
