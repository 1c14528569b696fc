// `qlora completion` and `qlora man` against what --help prints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <sstream>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::HasSubstr;

struct Helped {
  std::vector<std::string> command;            // {"inspect", "data"}; none: the program
  std::vector<std::string> options, commands;  // "--set", "data"
};

// By the lines of --help: "  -h,--help ...", "  train ...".
Helped helped(const TempDir& dir, std::vector<std::string> command) {
  Helped result{command, {}, {}};
  command.emplace_back("--help");
  const Finished done = run_qlora(dir, command);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  std::istringstream lines(done.out);
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] != ' ') section = line;
    std::smatch found;
    if (section == "Options:" &&
        std::regex_search(line, found, std::regex("^  (-[a-z],)?(--[a-z-]+)")))
      result.options.push_back(found[2]);
    if (section == "Subcommands:" && std::regex_search(line, found, std::regex("^  ([a-z]+)")))
      result.commands.push_back(found[1]);
  }
  return result;
}

// The program, its commands and those within them; all but help, which prints the help of others.
std::vector<Helped> all_commands(const TempDir& dir) {
  std::vector<Helped> all = {helped(dir, {})};
  for (size_t i = 0; i < all.size(); ++i)
    for (const std::string& name : std::vector<std::string>(all[i].commands)) {
      if (name == "help") continue;
      std::vector<std::string> command = all[i].command;
      command.push_back(name);
      all.push_back(helped(dir, command));
    }
  return all;
}

std::string without_escapes(std::string roff) {
  std::erase(roff, '\\');
  return roff;
}

TEST(ShellFiles, CompletionKnowsEveryCommandAndOption) {
  TempDir dir;
  const std::vector<Helped> commands = all_commands(dir);
  ASSERT_GT(commands.size(), 15U);
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const Finished done = run_qlora(dir, {"completion", shell});
    ASSERT_EQ(done.exit_code, 0) << done.err;
    for (const Helped& command : commands) {
      for (const std::string& name : command.commands)
        EXPECT_THAT(done.out, testing::ContainsRegex("[ ':]" + name + "[ ':]")) << shell;
      for (const std::string& option : command.options)
        EXPECT_THAT(done.out, HasSubstr(shell == "fish" ? " -l " + option.substr(2) : option))
            << shell;
    }
  }
}

TEST(ShellFiles, ASourceOfBashHasNoFault) {
  TempDir dir;
  ASSERT_EQ(run_qlora(dir, {"completion", "bash", "--output", "made/below/qlora"}).exit_code, 0);
  const Finished checked =
      ChildProcess("/bin/bash", {"-n", dir / "made/below/qlora"}, dir.path()).wait();
  EXPECT_EQ(checked.exit_code, 0) << checked.err;
  EXPECT_EQ(checked.err, "");
}

TEST(ShellFiles, TheManualPageOfEachCommandNamesAllItsOptions) {
  TempDir dir;
  ASSERT_EQ(run_qlora(dir, {"man", "--output", dir / "man1"}).exit_code, 0);
  for (const Helped& command : all_commands(dir)) {
    std::string file = "man1/qlora";
    std::vector<std::string> arguments = {"man"};
    for (const std::string& name : command.command) {
      file += "-" + name;
      arguments.push_back(name);
    }
    const std::string page = read_file(dir / (file + ".1"));
    ASSERT_TRUE(page.starts_with(".TH \"QLORA")) << file;
    EXPECT_EQ(run_qlora(dir, arguments).out, page);
    ASSERT_FALSE(command.options.empty()) << file;
    for (const std::string& option : command.options)
      EXPECT_THAT(without_escapes(page), HasSubstr("fB" + option + "fR")) << file;
    for (const std::string& name : command.commands)
      EXPECT_THAT(without_escapes(page), HasSubstr("fB" + name + "fR\n")) << file;
  }
}

TEST(ShellFiles, ReplacesWhatItWroteAndNothingElse) {
  TempDir dir;
  dir.write("bashrc", "alias l=ls\n");
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    EXPECT_EQ(run_qlora(dir, {"completion", shell, "--output", "bashrc"}).exit_code, 2);
    EXPECT_EQ(read_file(dir / "bashrc"), "alias l=ls\n");
    for (int i = 0; i < 2; ++i)
      EXPECT_EQ(run_qlora(dir, {"completion", shell, "--output", shell}).exit_code, 0);
  }
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(run_qlora(dir, {"man", "inspect", "--output", "pages"}).exit_code, 0);
}

TEST(ShellFiles, WhatThereIsNotIsNamed) {
  TempDir dir;
  const Finished shell = run_qlora(dir, {"completion", "tcsh"});
  EXPECT_EQ(shell.exit_code, 2);
  EXPECT_THAT(shell.err, HasSubstr("tcsh"));
  const Finished command = run_qlora(dir, {"man", "inspect", "dta"});
  EXPECT_EQ(command.exit_code, 2);
  EXPECT_THAT(command.err, HasSubstr("there is no command 'inspect dta'"));
}

}  // namespace
}  // namespace qlora::test
