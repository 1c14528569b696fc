#include "cli/shell_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/man_page.h"
#include "cli/shell_completion.h"
#include "io/atomic_write.h"
#include "io/replaceable.h"

namespace {
namespace fs = std::filesystem;
using qlora::cli::CommandFacts;

constexpr size_t kHead = 20;  // of each file, the same in every version of the program

// Prints it, or writes it to a file whose directories are made.
void put(const std::string& text, const std::string& path) {
  if (path.empty()) {
    fmt::print("{}", text);
    return;
  }
  qlora::io::require_replaceable(path, text.substr(0, kHead), "file");
  qlora::io::make_directories(fs::absolute(path).parent_path().string());
  qlora::io::write_file_atomically(path, text);
}

std::string completion_for(const std::string& shell, const CommandFacts& program) {
  if (shell == "bash") return qlora::cli::bash_completion(program);
  return shell == "zsh" ? qlora::cli::zsh_completion(program)
                        : qlora::cli::fish_completion(program);
}

// "inspect data" below the program.
std::vector<CommandFacts> chain_of(const CommandFacts& program,
                                   const std::vector<std::string>& names) {
  std::vector<CommandFacts> chain = {program};
  for (const std::string& name : names) {
    const auto& commands = chain.back().commands;
    const auto found = std::ranges::find(commands, name, &CommandFacts::name);
    if (found == commands.end())
      qlora::fail<qlora::ConfigError>("there is no command '{}'", fmt::join(names, " "));
    const CommandFacts command = *found;
    chain.push_back(command);
  }
  return chain;
}

// Of a command and all below it.
void write_pages(const std::vector<CommandFacts>& chain, const std::string& directory) {
  put(qlora::cli::man_page(chain), (fs::path(directory) / qlora::cli::man_file(chain)).string());
  for (const CommandFacts& command : chain.back().commands) {
    std::vector<CommandFacts> longer = chain;
    longer.push_back(command);
    write_pages(longer, directory);
  }
}

}  // namespace

void add_completion_command(qlora::cli::Command app) {
  struct Arguments {
    std::string shell, output;
  };
  auto arguments = std::make_shared<Arguments>();
  qlora::cli::Command command = app.add_subcommand(
      "completion",
      "What a shell needs to complete commands and options: source <(qlora completion bash)");
  command.add_option("SHELL", arguments->shell, "bash, zsh or fish")
      .required()
      .one_of({"bash", "zsh", "fish"});
  command.add_option("--output", arguments->output, "File to write; without it, to the terminal");
  command.callback(
      [app, arguments] { put(completion_for(arguments->shell, app.facts()), arguments->output); });
}

void add_man_command(qlora::cli::Command app) {
  struct Arguments {
    std::vector<std::string> names;
    std::string output;
  };
  auto arguments = std::make_shared<Arguments>();
  qlora::cli::Command command = app.add_subcommand(
      "man", "The manual page of the program or a command, as roff: qlora man train | man -l -");
  command.add_option("COMMAND", arguments->names, "train, or inspect data; none: the program");
  command.add_option("--output", arguments->output,
                     "Directory to write the pages of the command and of all below it to");
  command.callback([app, arguments] {
    const auto chain = chain_of(app.facts(), arguments->names);
    if (arguments->output.empty())
      fmt::print("{}", qlora::cli::man_page(chain));
    else
      write_pages(chain, arguments->output);
  });
}
