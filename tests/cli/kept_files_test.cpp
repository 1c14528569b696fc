// What lies on the disk is whole whatever kills the program, and commands that read change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

// Every name below a directory with its bytes and the time it was changed.
std::map<std::string, std::string> state_of(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const auto changed = fs::last_write_time(entry.path()).time_since_epoch().count();
    files[entry.path().string()] =
        std::to_string(changed) + (entry.is_regular_file() ? read_file(entry.path().string()) : "");
  }
  return files;
}

recipes::Recipe saving_recipe(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 4;
  recipe.train.save_every = 1;
  recipe.train.eval_every = 2;
  recipe.train.save_total_limit = 2;
  recipe.train.threads = 1;
  return recipe;
}

class KeptFiles : public testing::Test {
 protected:
  KeptFiles() { write_recipe_file(dir, saving_recipe(dir)); }

  std::vector<std::string> train(const std::string& run) const {
    return {"train", dir / "recipe.yaml", "--set", "output.dir=" + dir / run};
  }
  std::string adapter(const std::string& run) const {
    return read_file(dir / (run + "/adapter/adapter_model.safetensors"));
  }
  // The calls that change a file, counted or, from 1 on, with a kill at the one of that number.
  Finished with_calls(const std::string& setting, const std::vector<std::string>& command) const {
    std::vector<std::string> arguments = {std::string("LD_PRELOAD=") + QLORA_KILL_AT_CALL,
                                          "ASAN_OPTIONS=verify_asan_link_order=0", setting,
                                          QLORA_PROGRAM};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return ChildProcess("/usr/bin/env", arguments, dir.path()).wait();
  }
  // Kills the command at a dozen calls spread over all it makes; `look` sees what is left.
  void kill_on_the_way(const std::vector<std::string>& command,
                       const std::function<void()>& prepare,
                       const std::function<void()>& look) const {
    prepare();
    ASSERT_EQ(with_calls("QLORA_COUNT_CALLS_IN=" + dir / "calls", command).exit_code, 0);
    const int64_t calls = std::atoll(read_file(dir / "calls").c_str());
    ASSERT_GT(calls, 20);
    const int64_t stride = calls / 11;
    for (int64_t number = 1 + stride / 2; number <= calls; number += stride) {
      SCOPED_TRACE(testing::Message() << "killed at call " << number << " of " << calls);
      prepare();
      const Finished killed = with_calls("QLORA_KILL_AT_CALL=" + std::to_string(number), command);
      EXPECT_EQ(killed.signal, SIGKILL) << killed.exit_code << killed.err;
      look();
    }
  }

  TempDir dir;
};

TEST_F(KeptFiles, ARunKilledAtAnyCallGoesOnToTheSameAdapterAndTheSameSteps) {
  ASSERT_EQ(run_qlora(dir, train("unbroken")).exit_code, 0);
  kill_on_the_way(
      train("run"), [&] { fs::remove_all(dir / "run"); },
      [&] {
        const Finished done = run_qlora(dir, train("run"));
        EXPECT_EQ(done.exit_code, 0) << done.err;
        EXPECT_EQ(adapter("run"), adapter("unbroken"));
        std::string steps;
        const std::string metrics = read_file(dir / "run/metrics.jsonl");
        for (size_t at = 0; (at = metrics.find("{\"step\":", at)) != std::string::npos; ++at)
          steps += metrics[at + 8];
        EXPECT_EQ(steps, "122344");  // 2 and 4 are evaluated
        for (const auto& entry : fs::directory_iterator(dir / "run"))
          EXPECT_EQ(entry.path().string().find(".partial-"), std::string::npos) << entry.path();
        EXPECT_TRUE(fs::exists(dir / "run/best/MANIFEST.json"));
      });
}

TEST_F(KeptFiles, AnExportKilledAtAnyCallLeavesTheWholeOrNothingOfItsName) {
  ASSERT_EQ(run_qlora(dir, train("run")).exit_code, 0);
  const std::vector<std::string> command = {"export", dir / "run", "--format",
                                            "merged", "--output",  dir / "out/model"};
  kill_on_the_way(
      command, [&] { fs::remove_all(dir / "out"); },
      [&] {
        if (fs::exists(dir / "out/model")) {
          EXPECT_TRUE(fs::exists(dir / "out/model/verification.json"));
          return;
        }
        EXPECT_EQ(run_qlora(dir, command).exit_code, 0);
        for (const auto& entry : fs::directory_iterator(dir / "out"))
          EXPECT_EQ(entry.path().filename(), "model");  // and nothing of the killed one
      });
}

TEST_F(KeptFiles, AFileLargerThanItMayBeIsAnErrorThatNamesItAndNothingIsLeft) {
  ASSERT_EQ(run_qlora(dir, train("run")).exit_code, 0);
  const std::vector<std::string> command = {"export", dir / "run", "--format",
                                            "merged", "--output",  dir / "out/model"};
  constexpr uint64_t kBytes = 9000;  // less than the weights
  const Finished done = ChildProcess(QLORA_PROGRAM, command, dir.path(), kBytes).wait();
  EXPECT_EQ(done.signal, 0);
  EXPECT_EQ(done.exit_code, 1) << done.err;
  EXPECT_THAT(done.err, testing::AllOf(HasSubstr("safetensors"), HasSubstr("File too large")));
  EXPECT_FALSE(fs::exists(dir / "out/model"));
}

TEST_F(KeptFiles, CommandsThatReadChangeNothingInARun) {
  ASSERT_EQ(run_qlora(dir, train("run")).exit_code, 0);
  fs::remove_all(dir / "run/adapter");  // so that a checkpoint is looked for
  dir.write("run/checkpoint-000009.partial-0123456789abcdef/state.json", "{}");
  dir.write("run/checkpoint-000009.partial-fedcba9876543210/state.json", "{}");
  dir.write("run/checkpoint-000008/state.json", "{}");
  const auto before = state_of(dir / "run");
  const std::string run = dir / "run";
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"evaluate", run},
           {"inspect", run},
           {"inspect", run, "--json"},
           {"generate", run, "--prompt", "say 9", "--max-new-tokens", "2"},
           {"plan", dir / "run/recipe.resolved.yaml"},
           {"export", run, "--format", "adapter", "--output", dir / "out"}}) {
    const Finished done = run_qlora(dir, command);
    EXPECT_EQ(done.exit_code, 0) << command[0] << done.err;
    EXPECT_EQ(state_of(dir / "run"), before) << command[0];
  }
  const Finished told = run_qlora(dir, {"inspect", run});
  EXPECT_THAT(told.out, HasSubstr("checkpoint-000008: MANIFEST.json is missing"));
}

TEST_F(KeptFiles, ResumeGoesBackToTheCheckpointThatIsNamed) {
  ASSERT_EQ(run_qlora(dir, train("run")).exit_code, 0);
  const std::string unbroken = adapter("run");
  const Finished absent = run_qlora(dir, {"resume", dir / "run", "--from", "checkpoint-000009"});
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err, HasSubstr("qlora resume " + dir / "run" + " --from"));
  const Finished done = run_qlora(dir, {"resume", dir / "run", "--from", "checkpoint-000003"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, HasSubstr("set-aside-1"));
  EXPECT_EQ(adapter("run"), unbroken);
  EXPECT_EQ(adapter("run/set-aside-1"), unbroken);
}

}  // namespace
}  // namespace qlora::test
