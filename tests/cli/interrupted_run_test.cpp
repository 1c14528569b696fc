// A run as a process: stopped, killed, out of disk, started twice. What it leaves must go on to the
// bytes of the unbroken run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <thread>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

// A recipe long enough to be stopped on its way.
recipes::Recipe long_recipe(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 150;
  recipe.train.save_every = 20;
  recipe.train.threads = 1;  // threads that wait for each other crawl on a busy machine
  return recipe;
}

std::vector<std::string> train(const TempDir& dir, const std::string& run) {
  return {"train", dir / "recipe.yaml", "--set", "output.dir=" + dir / run};
}

std::string adapter(const TempDir& dir, const std::string& run) {
  return read_file(dir / (run + "/adapter/adapter_model.safetensors"));
}

std::map<std::string, std::string> contents(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file()) files[entry.path().string()] = read_file(entry.path().string());
  return files;
}

class InterruptedRun : public testing::Test {
 protected:
  void SetUp() override {
    write_recipe_file(dir, long_recipe(dir));
    ASSERT_EQ(run_qlora(dir, train(dir, "unbroken")).exit_code, 0);
    unbroken = adapter(dir, "unbroken");
    ASSERT_FALSE(unbroken.empty());
  }

  // Starts a run and sends `signal` when it has logged `steps`.
  Finished interrupt(const std::string& run, int signal, int64_t steps) {
    ChildProcess process(QLORA_PROGRAM, train(dir, run), dir.path());
    EXPECT_TRUE(process.wait_until([&] { return steps_logged(dir, run) >= steps; }));
    process.send(signal);
    return process.wait();
  }

  void expect_the_rest_is_the_same(const std::string& run) {
    const Finished done = run_qlora(dir, {"resume", dir / run});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(adapter(dir, run), unbroken);
  }

  TempDir dir;
  std::string unbroken;
};

TEST_F(InterruptedRun, AStopSignalSavesSaysHowToGoOnAndLosesNothing) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU}) {
    const std::string run = "stopped-by-" + std::to_string(signal);
    const Finished stopped = interrupt(run, signal, 7);
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    EXPECT_THAT(stopped.out + stopped.err, HasSubstr("qlora resume"));
    EXPECT_FALSE(fs::exists(dir / (run + "/adapter")));
    expect_the_rest_is_the_same(run);
  }
}

// Of two steps of 600 micro-batches or evaluations of 4000 rows: a second or more of each.
recipes::Recipe long_phases(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.threads = 1;
  recipe.train.save_every = 0;
  recipe.train.max_steps = 2;
  return recipe;
}

class LongPhases : public testing::Test {
 protected:
  // Runs to the end, and, under another name, to a stop after `lines` lines of metrics.jsonl and
  // from there to the end, which must be the same. Gives what was said at the stop.
  std::string stop_and_go_on(const recipes::Recipe& recipe, int64_t lines) {
    write_recipe_file(dir, recipe);
    EXPECT_EQ(run_qlora(dir, train(dir, "unbroken")).exit_code, 0);
    ChildProcess process(QLORA_PROGRAM, train(dir, "stopped"), dir.path());
    EXPECT_TRUE(process.wait_until([&] { return steps_logged(dir, "stopped") >= lines; }));
    // The phase that follows the line has begun by then, and lasts several times as long.
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    process.send(SIGINT);
    const Finished stopped = process.wait();
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    EXPECT_FALSE(fs::exists(dir / "stopped/adapter"));
    const Finished done = run_qlora(dir, {"resume", dir / "stopped"});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(adapter(dir, "stopped"), adapter(dir, "unbroken"));
    EXPECT_EQ(steps_logged(dir, "stopped"), steps_logged(dir, "unbroken"));
    return stopped.err;
  }

  TempDir dir;
};

TEST_F(LongPhases, CtrlCLeavesAStepBetweenItsMicroBatches) {
  recipes::Recipe recipe = long_phases(dir);
  recipe.data.packing = false;
  write_tiny_rows(dir / "rows.jsonl", 1200);
  recipe.train.gradient_accumulation_steps = 600;
  const std::string said = stop_and_go_on(recipe, 1);
  EXPECT_THAT(said, testing::ContainsRegex(
                        "stopped in step 2 after micro-batch [0-9]+ of 600; the step is "
                        "abandoned, the run is saved after step 1; go on with: qlora resume"));
}

TEST_F(LongPhases, CtrlCLeavesAnEvaluationWhichIsDoneAgain) {
  recipes::Recipe recipe = long_phases(dir);
  write_tiny_rows(dir / "eval.jsonl", 4000);
  recipe.train.eval_every = 1;
  const std::string said = stop_and_go_on(recipe, 1);
  EXPECT_THAT(said, testing::ContainsRegex(
                        "stopped in the evaluation after step 1 at row [0-9]+ of 4000; it will be "
                        "done again, the run is saved after step 1; go on with: qlora resume"));
}

TEST_F(LongPhases, CtrlCWhileRowsAreTokenizedLeavesNothing) {
  write_recipe_file(dir, long_phases(dir));
  write_tiny_rows(dir / "rows.jsonl", 100000);
  ChildProcess process(QLORA_PROGRAM, train(dir, "run"), dir.path());
  const auto rows_are_next = [&] {
    return read_file(dir / "stderr.txt").find("device ") != std::string::npos;
  };
  ASSERT_TRUE(process.wait_until(rows_are_next));
  process.send(SIGINT);
  const Finished stopped = process.wait();
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("stopped: tokenizing"));
  for (const auto& entry : fs::directory_iterator(dir / "run"))
    EXPECT_EQ(entry.path().filename(), "log.txt");
}

// Commands that read put rows into the cache, too.
TEST_F(LongPhases, AStopWhileRowsAreTokenizedLeavesNothingInTheCache) {
  recipes::Recipe recipe = long_phases(dir);
  write_recipe_file(dir, recipe);
  const std::string many = dir / "many.jsonl", cache = dir / "cache";
  write_tiny_rows(many, 100000);
  const std::vector<std::vector<std::string>> commands = {
      {"evaluate", "--model", recipe.model.path, "--data", many, "--format", "chat"},
      {"inspect", "data", dir / "recipe.yaml", "--set",
       "data.train=[{path: " + many + ", format: chat}]"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.end(), {"--set", "data.cache=true", "--set", "data.cache_dir=" + cache});
    for (const int signal : {SIGINT, SIGTERM}) {
      ChildProcess process(QLORA_PROGRAM, command, dir.path());
      ASSERT_TRUE(process.wait_until([&] { return fs::exists(cache) && !fs::is_empty(cache); }));
      process.send(signal);
      const Finished stopped = process.wait();
      EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
      EXPECT_THAT(stopped.err, HasSubstr("stopped: tokenizing"));
      EXPECT_TRUE(fs::is_empty(cache));
    }
  }
}

TEST_F(InterruptedRun, KilledAtAnyMomentItGoesOnToTheSameBytes) {
  for (const int64_t steps : {1, 21, 40, 133}) {
    const std::string run = "killed-" + std::to_string(steps);
    EXPECT_EQ(interrupt(run, SIGKILL, steps).signal, SIGKILL);
    const Finished done = run_qlora(dir, train(dir, run));  // before the first checkpoint: anew
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(adapter(dir, run), unbroken) << steps;
  }
}

TEST_F(InterruptedRun, ASaveThatFailsIsAnErrorAndTheCheckpointBeforeItIsGood) {
  ASSERT_EQ(interrupt("full", SIGINT, 2).exit_code, 130);
  const auto before = contents(dir / "full");
  constexpr uint64_t kBytes = 9000;  // less than the adapter's file, more than twenty steps log
  const Finished failed =
      ChildProcess(QLORA_PROGRAM, {"resume", dir / "full"}, dir.path(), kBytes).wait();
  EXPECT_EQ(failed.exit_code, 1) << failed.err;
  EXPECT_THAT(failed.err, HasSubstr("safetensors"));
  EXPECT_THAT(failed.err, testing::ContainsRegex("The run is saved after step [0-9]+; once that is "
                                                 "mended, go on with: qlora resume "));
  for (const auto& [path, bytes] : before) {
    if (path.find("checkpoint-") != std::string::npos) {
      EXPECT_EQ(read_file(path), bytes) << path;
    }
  }
  EXPECT_FALSE(fs::exists(dir / "full/adapter"));
  expect_the_rest_is_the_same("full");
}

TEST_F(InterruptedRun, ARunWhoseDirectoryIsMovedAwaySaysSoAndCanBeResumed) {
  auto arguments = train(dir, "gone");
  arguments.insert(arguments.end(), {"--set", "train.save_every=0"});
  ChildProcess process(QLORA_PROGRAM, arguments, dir.path());
  // memory.json is written after ten.
  ASSERT_TRUE(process.wait_until([&] { return steps_logged(dir, "gone") >= 12; }));
  fs::rename(dir / "gone", dir / "elsewhere");
  process.send(SIGINT);
  const Finished stopped = process.wait();
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("was removed or moved away while the run goes on"));
  expect_the_rest_is_the_same("gone");
}

// As import writes it for LLaMA-Factory's files.
TEST_F(InterruptedRun, ARecipeThatOverwritesGoesOnAndTheOptionBeginsAnew) {
  recipes::Recipe recipe = long_recipe(dir);
  recipe.output.overwrite = true;
  write_recipe_file(dir, recipe);
  for (const bool anew : {false, true}) {
    const std::string run = anew ? "anew" : "same";
    EXPECT_EQ(interrupt(run, SIGINT, 7).exit_code, 130);
    std::vector<std::string> again = train(dir, run);
    if (anew) again.emplace_back("--overwrite");
    const Finished done = run_qlora(dir, again);
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(adapter(dir, run), unbroken);
    EXPECT_EQ(done.err.find("what it had is removed: ") != std::string::npos, anew) << done.err;
    EXPECT_EQ(done.err.find("going on from") != std::string::npos, !anew) << done.err;
  }
}

TEST_F(InterruptedRun, ALiveRunTakesNoSecondProcess) {
  ChildProcess first(QLORA_PROGRAM, train(dir, "live"), dir.path());
  ASSERT_TRUE(first.wait_until([&] { return steps_logged(dir, "live") >= 3; }));
  const std::string other = dir / "other";
  fs::create_directories(other);
  const Finished second = ChildProcess(QLORA_PROGRAM, train(dir, "live"), other).wait();
  EXPECT_EQ(second.exit_code, 2) << second.err;
  EXPECT_THAT(second.err, HasSubstr("live"));
  EXPECT_EQ(first.wait().exit_code, 0);
  EXPECT_EQ(adapter(dir, "live"), unbroken);
}

TEST_F(InterruptedRun, AFinishedRunIsLeftAsItIs) {
  const auto before = contents(dir / "unbroken");
  const Finished again = run_qlora(dir, train(dir, "unbroken"));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  auto other = train(dir, "unbroken");
  other.insert(other.end(), {"--set", "optim.lr=1e-4"});
  const Finished refused = run_qlora(dir, other);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("optim.lr"));
  for (const auto& [path, bytes] : before) {
    if (path.find("log.txt") == std::string::npos) {
      EXPECT_EQ(read_file(path), bytes) << path;
    }
  }
}

TEST_F(InterruptedRun, AMistakeInTheRecipeThatReplacesItCostsNothing) {
  const auto before = contents(dir / "unbroken");
  auto arguments = train(dir, "unbroken");
  for (const char* set : {"output.overwrite=true", "data.train[0].path=absent.jsonl"})
    arguments.insert(arguments.end(), {"--set", set});
  EXPECT_NE(run_qlora(dir, arguments).exit_code, 0);
  for (const auto& [path, bytes] : before) {
    if (path.find("log.txt") == std::string::npos) {
      EXPECT_EQ(read_file(path), bytes) << path;
    }
  }
}

TEST_F(InterruptedRun, BothExportsOfItAreCheckedAndWritten) {
  for (const std::string format : {"adapter", "merged"}) {
    const std::string output = dir / ("export-" + format);
    const Finished done =
        run_qlora(dir, {"export", dir / "unbroken", "--format", format, "--output", output});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_THAT(done.out, HasSubstr("reloaded and compared"));
    EXPECT_TRUE(fs::exists(output + "/verification.json"));
    const Finished again =
        run_qlora(dir, {"export", dir / "unbroken", "--format", format, "--output", output});
    EXPECT_EQ(again.exit_code, 2) << again.err;
  }
  const Finished answer =
      run_qlora(dir, {"generate", dir / "unbroken", "--prompt", "say 9", "--max-new-tokens", "4"});
  EXPECT_EQ(answer.exit_code, 0) << answer.err;
}

TEST_F(InterruptedRun, ADivergedRunHasItsOwnExitCode) {
  auto arguments = train(dir, "diverged");
  for (const char* set : {"optim.lr=1e30", "optim.schedule=constant", "train.save_every=1"})
    arguments.insert(arguments.end(), {"--set", set});
  const Finished done = run_qlora(dir, arguments);
  EXPECT_EQ(done.exit_code, 3) << done.err;
  EXPECT_THAT(done.err, HasSubstr("lora.from_adapter=" + dir / "diverged/checkpoint-0"));
  EXPECT_FALSE(fs::exists(dir / "diverged/adapter"));
}

}  // namespace
}  // namespace qlora::test
