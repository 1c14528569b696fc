// What a user who does not know the commands gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
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

TEST(Help, AnOptionThatIsMeantOtherwiseIsToldWhatIsRight) {
  TempDir dir;
  const auto expect = [&](const std::vector<std::string>& arguments, const std::string& told) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2);
    EXPECT_THAT(done.err, HasSubstr(told));
  };
  expect({"train", "--recipe", "r.yaml"},
         "there is no option --recipe; RECIPE is given by itself, without an option");
  expect({"chat", "--run-dir", "runs/a"},
         "there is no option --run-dir; RUN_DIR is given by itself, without an option");
  expect({"train", "r.yaml", "--model", "m"},
         "there is no option --model; a key of the recipe is set with --set KEY=VALUE\n");
  expect({"plan", "r.yaml", "--threads", "1", "--lr", "2"},
         "there is no option --threads, --lr; a key of the recipe is set with --set KEY=VALUE\n");
  fs::create_directories(dir / "model");
  dir.write("model/config.json", "{}");
  expect({"chat", "model"}, "model is a model and no run; give it as --model model");
  expect({"export", "m.gguf", "--format", "gguf", "--output", "o"}, "give it as --model m.gguf");
  fs::create_directories(dir / "adapter");
  dir.write("adapter/adapter_config.json", "{}");
  expect({"generate", "adapter", "--prompt", "a"}, "give it as --model BASE --adapter adapter");
}

TEST(Help, TheModelAndTheOutputHaveTheSameOptionsInEveryCommand) {
  TempDir dir;
  for (const char* command : {"evaluate", "generate", "chat", "export", "quantize", "dequantize",
                              "inspect", "tokenize", "render"})
    EXPECT_THAT(run_qlora(dir, {command, "--help"}).out, HasSubstr("\n  --model")) << command;
  for (const char* command :
       {"export", "recipes", "import", "quantize", "dequantize", "completion", "man"})
    EXPECT_THAT(run_qlora(dir, {command, "--help"}).out, HasSubstr("\n  -o,--output")) << command;
  write_tiny_directory(dir / "model");
  EXPECT_EQ(run_qlora(dir, {"inspect", "--model", "model"}).out,
            run_qlora(dir, {"inspect", "model"}).out);
  const auto ids = [&](const std::string& option) {
    return ChildProcess("/bin/sh",
                        {"-c", std::string("printf hello | ") + QLORA_PROGRAM + " tokenize " +
                                   option + " model"},
                        dir.path())
        .wait();
  };
  EXPECT_EQ(ids("--model").exit_code, 0);
  EXPECT_FALSE(ids("--model").out.empty());
  EXPECT_EQ(ids("--model").out, ids("--tokenizer").out);
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
