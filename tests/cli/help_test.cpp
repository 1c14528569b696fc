// What a user who does not know the commands gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;

const std::vector<std::string> kCommands = {
    "train",  "resume",  "plan",      "evaluate",   "generate",   "chat",    "export",
    "report", "recipes", "import",    "quantize",   "dequantize", "inspect", "tokenize",
    "render", "doctor",  "reference", "completion", "man"};

void expect_list(const std::string& text) {
  for (const std::string& command : kCommands)
    EXPECT_THAT(text, testing::ContainsRegex("\n  " + command + " +[A-Z]")) << command;
}

TEST(Help, WithoutACommandTheCommandsAreListed) {
  TempDir dir;
  const Finished done = run_qlora(dir, {});
  EXPECT_EQ(done.exit_code, 2);
  expect_list(done.err);
}

TEST(Help, IsACommandAndAnOption) {
  TempDir dir;
  const Finished command = run_qlora(dir, {"help"}), option = run_qlora(dir, {"--help"});
  EXPECT_EQ(command.exit_code, 0) << command.err;
  EXPECT_EQ(option.exit_code, 0) << option.err;
  EXPECT_EQ(command.out, option.out);
  expect_list(command.out);
}

TEST(Help, OfEveryCommandIsNoError) {
  TempDir dir;
  for (const std::string& command : kCommands) {
    const Finished asked = run_qlora(dir, {"help", command}),
                   option = run_qlora(dir, {command, "--help"});
    EXPECT_EQ(asked.exit_code, 0) << command << asked.err;
    EXPECT_EQ(asked.out, option.out);
    EXPECT_THAT(asked.out, HasSubstr("Usage: qlora " + command));
  }
  EXPECT_THAT(run_qlora(dir, {"help", "inspect", "data"}).out,
              HasSubstr("Usage: qlora inspect data"));
}

TEST(Help, AMistypedCommandIsToldTheNearest) {
  TempDir dir;
  for (const auto& [typed, meant] : {std::pair{"trian", "train"}, {"eval", "evaluate"}}) {
    for (const auto& arguments : {std::vector<std::string>{typed}, {"help", typed}}) {
      const Finished done = run_qlora(dir, arguments);
      EXPECT_EQ(done.exit_code, 2);
      EXPECT_THAT(done.err, HasSubstr(std::string("error: there is no command '") + typed +
                                      "'; did you mean '" + meant + "'?"));
      expect_list(done.err);
    }
  }
}

TEST(Help, AMistypedOptionIsToldTheNearestAndWhereToLook) {
  TempDir dir;
  const Finished done = run_qlora(dir, {"train", "recipe.yaml", "--overwite"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("error: qlora train: "),
                              HasSubstr("--overwite; did you mean '--overwrite'?"),
                              HasSubstr("qlora train --help")));
  const Finished nothing = run_qlora(dir, {"inspect", "data"});
  EXPECT_EQ(nothing.exit_code, 2);
  EXPECT_THAT(nothing.err, HasSubstr("error: qlora inspect data: RECIPE is required"));
}

TEST(Help, AnOptionThatIsNoneIsNamedWhereSomethingIsMissingToo) {
  TempDir dir;
  const auto expect = [&](const std::vector<std::string>& arguments, const std::string& told) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2);
    EXPECT_THAT(done.err, HasSubstr(told));
  };
  expect({"-v"}, "error: qlora: there is no option -v; did you mean '--version'?");
  expect({"--verison"}, "error: qlora: there is no option --verison; did you mean '--version'?");
  expect({"train", "--hlep"},
         "error: qlora train: there is no option --hlep; did you mean '--help'?");
  expect({"inspect", "--hlep"}, "--hlep; did you mean '--help'?");
}

TEST(Help, LinesFitTheTerminalAndBreakBetweenWords) {
  TempDir dir;
  setenv("COLUMNS", "80", 1);
  for (const auto& arguments : {std::vector<std::string>{"help"},
                                {"evaluate", "--help"},
                                {"train", "--help"},
                                {"export", "--help"},
                                {"quantize", "--help"},
                                {"report", "--help"},
                                {"man", "--help"},
                                {"recipes"},
                                {"doctor"}}) {
    std::istringstream lines(run_qlora(dir, arguments).out);
    for (std::string line; std::getline(lines, line);)
      EXPECT_LE(line.size(), 80U) << arguments.front() << ": " << line;
  }
  unsetenv("COLUMNS");
}

}  // namespace
}  // namespace qlora::test
