// A terminal that closes and a reader that goes away: what they do to each kind of command.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <sstream>
#include <string>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

// Long enough to be met on its way.
recipes::Recipe long_recipe(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 100;
  recipe.train.threads = 1;
  return recipe;
}

class LostTerminal : public testing::Test {
 protected:
  LostTerminal() { write_recipe_file(dir, long_recipe(dir)); }

  // A line of sh in the folder; $Q is the program.
  Finished shell(const std::string& line) const {
    return ChildProcess("/bin/sh", {"-c", std::string("Q=") + QLORA_PROGRAM + "; " + line},
                        dir.path())
        .wait();
  }

  TempDir dir;
};

TEST_F(LostTerminal, AHangUpSavesAndStopsHoweverOftenItComes) {
  ChildProcess process(QLORA_PROGRAM, {"train", dir / "recipe.yaml"}, dir.path());
  ASSERT_TRUE(process.wait_until([&] { return steps_logged(dir, "run") >= 5; }));
  for (int i = 0; i < 3; ++i) process.send(SIGHUP);
  const Finished stopped = process.wait();
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("qlora resume"));
  // Within a step, or between two.
  EXPECT_THAT(read_file(dir / "run/log.txt"),
              testing::AnyOf(HasSubstr("the run is saved after step"),
                             testing::ContainsRegex("stopped after step [0-9]+ and saved")));
  EXPECT_EQ(run_qlora(dir, {"resume", dir / "run"}).exit_code, 0);
}

TEST_F(LostTerminal, UnderNohupAHangUpIsNothing) {
  ChildProcess process(
      "/bin/sh", {"-c", std::string("trap '' HUP; exec ") + QLORA_PROGRAM + " train recipe.yaml"},
      dir.path());
  ASSERT_TRUE(process.wait_until([&] { return steps_logged(dir, "run") >= 5; }));
  process.send(SIGHUP);
  EXPECT_EQ(process.wait().exit_code, 0);
  EXPECT_TRUE(fs::exists(dir / "run/adapter"));
}

// As a script starts it with "&": the Ctrl-C that ends the script is not meant for it.
TEST_F(LostTerminal, InTheBackgroundOfAScriptAnInterruptIsNothing) {
  ChildProcess process(
      "/bin/sh", {"-c", std::string("trap '' INT; exec ") + QLORA_PROGRAM + " train recipe.yaml"},
      dir.path());
  ASSERT_TRUE(process.wait_until([&] { return steps_logged(dir, "run") >= 5; }));
  process.send(SIGINT);
  EXPECT_EQ(process.wait().exit_code, 0);
  EXPECT_TRUE(fs::exists(dir / "run/adapter"));
}

TEST_F(LostTerminal, ARunGoesOnWithoutAReaderAndLogsToItsFile) {
  shell("($Q train recipe.yaml 2>&1; echo $? > status) | head -n 1");
  EXPECT_EQ(read_file(dir / "status"), "0\n");
  EXPECT_EQ(steps_logged(dir, "run"), 101);  // and an evaluation
  EXPECT_THAT(read_file(dir / "run/log.txt"), HasSubstr("finished: 100 steps"));
}

TEST_F(LostTerminal, WhatIsMeantForAClosedTerminalLandsInNoFileOfTheRun) {
  shell("$Q train recipe.yaml <&- >&- 2>&-; echo $? > status");
  EXPECT_EQ(read_file(dir / "status"), "0\n");
  std::istringstream lines(read_file(dir / "run/metrics.jsonl"));
  int64_t count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    EXPECT_TRUE(line.starts_with("{\"step\":") && line.ends_with("}")) << line;
  EXPECT_EQ(count, 101);  // and an evaluation
  EXPECT_THAT(read_file(dir / "run/log.txt"), HasSubstr("finished: 100 steps"));
}

TEST_F(LostTerminal, AnExportGoesOnWithoutAReader) {
  ASSERT_EQ(run_qlora(dir, {"train", dir / "recipe.yaml", "--set", "train.max_steps=2"}).exit_code,
            0);
  shell("($Q export run --format adapter --output out 2>&1; echo $? > status) | true");
  EXPECT_EQ(read_file(dir / "status"), "0\n");
  EXPECT_TRUE(fs::exists(dir / "out/verification.json"));
}

// 141 is 128 + SIGPIPE, as the shell tells it; also where the parent ignores the signal.
TEST_F(LostTerminal, ACommandThatPrintsEndsQuietlyWithoutAReader) {
  write_tiny_rows(dir / "rows.jsonl", 3000);
  for (const char* before : {"", "trap '' PIPE; "}) {
    shell(before + std::string("($Q inspect data recipe.yaml --rows -1 --json 2>err; "
                               "echo $? >status) | head -c 10"));
    EXPECT_EQ(read_file(dir / "status"), "141\n");
    EXPECT_EQ(read_file(dir / "err"), "");
  }
}

}  // namespace
}  // namespace qlora::test
