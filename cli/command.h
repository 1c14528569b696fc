// The command line: commands, their options, and what runs them. CLI11 does the work and is seen by
// command.cpp alone: each file that includes it compiles its validators and formatters again, for 8
// s.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace qlora::cli {

// An option that was added, for what else holds of it. A handle: the command line owns the option.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required() const;
  Option with_shown_default() const;  // --help prints the value that the variable has now
  // Numbers; nan is none of these.
  Option positive() const;
  Option not_negative() const;
  Option at_least(double low) const;
  Option between(double low, double high) const;
  Option one_of(const std::vector<std::string>& names) const;
  Option separated_by(char separator) const;  // several values in one argument
  Option one_value_each_time() const;         // a list grows by repeating the option alone
  Option needs(const Option& other) const;

  bool is_given() const;

 private:
  CLI::Option* option_;
};

// What --help tells of an option or a place, for shells and manual pages.
struct OptionFacts {
  std::vector<std::string> names;    // "--help", "-h"; of a place its one name
  std::string value;                 // "TEXT", "FLOAT"; empty: a flag
  std::vector<std::string> choices;  // the only values it takes; empty: any
  std::string help, standard;        // the default, where --help prints it
  bool is_place = false, takes_path = false, is_required = false, repeats = false;
};

struct CommandFacts {
  std::string name, help;            // of a command within another its own name alone
  std::vector<OptionFacts> options;  // places first
  std::vector<CommandFacts> commands;
};

// A command with its options. A handle: the command line owns the command. A name with dashes is an
// option, without them a place; `value` must live until the command has run.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command add_subcommand(const std::string& name, const std::string& help) const;
  // T: a string, a number (int, int64_t, uint64_t, double), or a std::vector of strings or numbers
  // (double); command.cpp lists them, and the names whose values are paths, where a leading ~/ is
  // the home directory.
  template <typename T>
  Option add_option(const std::string& name, T& value, const std::string& help) const;
  Option add_flag(const std::string& name, bool& value, const std::string& help) const;
  // Called once the command's arguments are read.
  void callback(std::function<void()> run) const;

  bool has_subcommand_given() const;
  // With all commands below it that have been added by now.
  CommandFacts facts() const;

 private:
  CLI::App* app_;
};

// Reads the arguments with the commands that `add_commands` adds to the program, and runs the
// command that was given; `help COMMAND` is `COMMAND --help`. Without a command, or with one that
// is not there, it lists them and returns 2. ConfigError if the arguments of a command are wrong;
// what a command throws is passed on.
int run_command_line(const std::string& program, const std::string& description,
                     const std::string& version, const std::function<void(Command)>& add_commands,
                     int argc, char** argv);

}  // namespace qlora::cli
