// Standard output that takes nothing more: each command that prints says so, and a run goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;

constexpr const char* kSentence =
    "error: standard output cannot be written: No space left on device\n";

class FullOutput : public testing::Test {
 protected:
  FullOutput() { write_recipe_file(dir, tiny_recipe(dir.path())); }

  // A line of sh in the folder; $Q is the program.
  Finished shell(const std::string& line) const {
    return ChildProcess("/bin/sh", {"-c", std::string("Q=") + QLORA_PROGRAM + "; " + line},
                        dir.path())
        .wait();
  }

  TempDir dir;
};

TEST_F(FullOutput, IsAFailureOfEveryCommandThatPrints) {
  for (const char* command :
       {"--help", "--version", "help train", "recipes", "recipes bloom-1b7", "reference", "doctor",
        "doctor --families", "man", "completion bash", "plan recipe.yaml",
        "inspect data recipe.yaml", "inspect data recipe.yaml --json --rows -1", "inspect model",
        "recipes bloom-1b7 --output copied.yaml"}) {
    const Finished finished = shell("exec $Q " + std::string(command) + " >/dev/full");
    EXPECT_EQ(finished.exit_code, 1) << command;
    EXPECT_THAT(finished.err, testing::EndsWith(kSentence)) << command;
  }
  EXPECT_TRUE(fs::exists(dir / "copied.yaml"));
}

TEST_F(FullOutput, IsToldOnceAndWhatIsWrittenStays) {
  ASSERT_EQ(run_qlora(dir, {"train", dir / "recipe.yaml"}).exit_code, 0);
  const Finished exported = shell("exec $Q export run --format adapter --output out >/dev/full");
  EXPECT_EQ(exported.exit_code, 1);
  EXPECT_THAT(exported.err, testing::EndsWith(kSentence));
  EXPECT_EQ(exported.err.find("standard output"), exported.err.rfind("standard output"));
  EXPECT_TRUE(fs::exists(dir / "out/verification.json"));
}

TEST_F(FullOutput, EndsNoRunWhichLogsToItsFile) {
  EXPECT_EQ(shell("exec $Q train recipe.yaml >/dev/full 2>/dev/full").exit_code, 0);
  EXPECT_THAT(read_file(dir / "run/log.txt"), testing::HasSubstr("finished"));
}

// Lines come without end; nobody waits for them once the first was not taken.
TEST_F(FullOutput, EndsACommandThatPrintsAsItReads) {
  const Finished finished = shell(
      "(yes '\"a\"' | $Q tokenize --tokenizer model --jsonl >/dev/full; "
      "echo $? >status) 2>err");
  EXPECT_EQ(read_file(dir / "status"), "1\n");
  EXPECT_EQ(read_file(dir / "err"), kSentence);
}

}  // namespace
}  // namespace qlora::test
