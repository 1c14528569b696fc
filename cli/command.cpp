#include "cli/command.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/nearest_word.h"
#include "base/terminal.h"
#include "io/user_path.h"

namespace qlora::cli {

Option Option::required() const { return Option(option_->required()); }
Option Option::with_shown_default() const { return Option(option_->capture_default_str()); }
Option Option::positive() const {
  return Option(option_->check([](const std::string& text) -> std::string {
    double number = 0;
    if (CLI::detail::lexical_cast(text, number) && number > 0) return "";
    return fmt::format("must be a number above 0, found {}", text);
  }));
}
Option Option::not_negative() const { return at_least(0); }
Option Option::at_least(double low) const {
  return Option(option_->check([low](const std::string& text) -> std::string {
    double number = 0;
    if (CLI::detail::lexical_cast(text, number) && number >= low) return "";
    return fmt::format("must be a number of at least {}, found {}", low, text);
  }));
}
Option Option::between(double low, double high) const {
  return Option(option_->check(CLI::Range(low, high))).at_least(low);
}
Option Option::one_of(const std::vector<std::string>& names) const {
  return Option(option_->check(CLI::IsMember(names)));
}
Option Option::separated_by(char separator) const { return Option(option_->delimiter(separator)); }
Option Option::one_value_each_time() const { return Option(option_->allow_extra_args(false)); }
Option Option::needs(const Option& other) const { return Option(option_->needs(other.option_)); }
bool Option::is_given() const { return option_->count() > 0; }

Command Command::add_subcommand(const std::string& name, const std::string& help) const {
  return Command(app_->add_subcommand(name, help));
}

namespace {

// The options and places that take paths, by the first of their names. Shells leave a ~ behind "="
// as it is.
bool takes_path(const std::string& names) {
  const std::string name = names.substr(0, names.find(','));
  for (const char* path :
       {"RECIPE", "RUN_DIR", "PATH", "FILE", "--model", "--adapter", "--output", "--data",
        "--template", "--messages", "--context", "--merge-base", "--resume", "--from", "--html",
        "--export", "--original", "--held-out", "--report-file"})
    if (name == path) return true;
  return false;
}

// The short name that an option has in every command.
std::string with_short_name(const std::string& name) {
  return name == "--output" ? "-o," + name : name;
}

}  // namespace

template <typename T>
Option Command::add_option(const std::string& name, T& value, const std::string& help) const {
  CLI::Option* option = app_->add_option(with_short_name(name), value, help);
  if (takes_path(name))
    option->transform([](const std::string& path) { return io::expand_home(path); });
  return Option(option);
}
template Option Command::add_option(const std::string&, std::string&, const std::string&) const;
template Option Command::add_option(const std::string&, int&, const std::string&) const;
template Option Command::add_option(const std::string&, int64_t&, const std::string&) const;
template Option Command::add_option(const std::string&, uint64_t&, const std::string&) const;
template Option Command::add_option(const std::string&, double&, const std::string&) const;
template Option Command::add_option(const std::string&, std::vector<std::string>&,
                                    const std::string&) const;
template Option Command::add_option(const std::string&, std::optional<double>&,
                                    const std::string&) const;
template Option Command::add_option(const std::string&, std::vector<double>&,
                                    const std::string&) const;

Option Command::add_flag(const std::string& name, bool& value, const std::string& help) const {
  return Option(app_->add_flag(name, value, help));
}

void Command::callback(std::function<void()> run) const { app_->callback(std::move(run)); }

bool Command::has_subcommand_given() const { return !app_->get_subcommands().empty(); }

namespace {

// "TEXT:{auto,cpu}" -> TEXT, and auto and cpu.
void read_type(const std::string& type, OptionFacts& facts) {
  facts.value = type.substr(0, type.find(':'));
  const size_t open = type.find(":{"), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return;
  const std::string list = type.substr(open + 2, close - open - 2);
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    facts.choices.push_back(list.substr(at, end - at));
    at = end + 1;
  }
}

OptionFacts facts_of(const CLI::Option& option) {
  OptionFacts facts;
  facts.is_place = option.get_positional();
  if (facts.is_place) facts.names.push_back(option.get_name(true, false));
  for (const std::string& name : option.get_lnames()) facts.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) facts.names.push_back("-" + name);
  if (option.get_expected_max() > 0) read_type(option.get_type_name(), facts);
  facts.help = option.get_description();
  facts.standard = option.get_default_str();
  facts.takes_path = takes_path(facts.names.front());
  facts.is_required = option.get_required();
  facts.repeats = option.get_expected_max() >= CLI::detail::expected_max_vector_size;
  return facts;
}

CommandFacts facts_of(const CLI::App& app) {
  CommandFacts facts{app.get_name(), app.get_description(), {}, {}};
  for (const CLI::Option* option : app.get_options()) facts.options.push_back(facts_of(*option));
  std::ranges::stable_partition(facts.options, &OptionFacts::is_place);
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    facts.commands.push_back(facts_of(*command));
  return facts;
}

}  // namespace

CommandFacts Command::facts() const { return facts_of(*app_); }

namespace {

constexpr size_t kUsualWidth = 80;
constexpr size_t kHelpColumn = 28;

size_t help_width() {
  const size_t width = terminal_width(stdout);
  return width > 0 ? width : kUsualWidth;
}

// CLI11's help, its descriptions broken between words at the terminal's width.
class HelpFormat : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    const std::string left =
        "  " + make_option_name(option, is_positional) + make_option_opts(option);
    return list_line(left, make_option_desc(option), kHelpColumn, help_width());
  }
  std::string make_subcommand(const CLI::App* command) const override {
    return list_line("  " + command->get_name(), command->get_description(), kHelpColumn,
                     help_width());
  }
  std::string make_description(const CLI::App* command) const override {
    return wrapped(CLI::Formatter::make_description(command), help_width(), 0);
  }
};

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> names_of_options(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// "; did you mean 'train'?", or nothing. Of what was cut short the first that begins so.
std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  std::string near = qlora::nearest_word(word, known);
  for (const std::string& name : known)
    if (near.empty() && word.size() > 1 && name.starts_with(word)) near = name;
  return near.empty() ? "" : "; did you mean '" + near + "'?";
}

// Words behind a command that begin as options do and are none of its.
std::vector<std::string> unknown_options(const CLI::App& command) {
  std::vector<std::string> options;
  for (const std::string& word : command.remaining())
    if (word.size() > 1 && word.starts_with("-")) options.push_back(word);
  return options;
}

// "; did you mean '--version'?" for "--verison", "--version=1" and "-v", or nothing.
std::string suggestion_of_option(const std::string& word, const CLI::App& command) {
  const std::string name = word.substr(0, word.find('='));
  return suggestion(name.starts_with("--") ? name : "-" + name, names_of_options(command));
}

// "; RECIPE is given by itself, without an option" for "--recipe", "; RUN_DIR ..." for "--run", or
// nothing.
std::string place_instead(const std::string& word, const CLI::App& command) {
  std::string name = word.substr(0, word.find('='));
  name.erase(0, name.find_first_not_of('-'));
  std::ranges::transform(name, name.begin(), [](unsigned char letter) {
    return letter == '-' ? '_' : static_cast<char>(std::toupper(letter));
  });
  for (const CLI::Option* option : command.get_options())
    if (option->get_positional() && name.size() > 1 &&
        option->get_name(true, false).starts_with(name))
      return fmt::format("; {} is given by itself, without an option",
                         option->get_name(true, false));
  return "";
}

// Where else an option may have been meant to lead.
std::string help_with_option(const std::string& word, const CLI::App& command) {
  if (std::string place = place_instead(word, command); !place.empty()) return place;
  if (std::string near = suggestion_of_option(word, command); !near.empty()) return near;
  if (command.get_option_no_throw("--set") != nullptr)
    return "; a key of the recipe is set with --set KEY=VALUE";
  return "";
}

// "qlora help inspect data" is "qlora inspect data --help".
std::vector<std::string> arguments_of(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments.front() == "help") {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  }
  return arguments;
}

// In our words where one value is taken and several were given, else in CLI11's.
std::string reason(const CLI::App& command, const CLI::ParseError& error) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ArgumentMismatch))
    for (const CLI::Option* option : command.get_options())
      if (const size_t times = option->count(); option->get_expected_max() == 1 && times > 1)
        return fmt::format("{} is given {}, and takes one value", option->get_name(),
                           times == 2 ? "twice" : fmt::format("{} times", times));
  return error.what();
}

// What is wrong with the arguments of the command that was given, and where it says what is right.
std::string sentence(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;
  std::string name = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    name += " " + command->get_name();
  }
  const std::vector<std::string> unknown = unknown_options(*command);
  const auto is = [&](CLI::ExitCodes code) {
    return error.get_exit_code() == static_cast<int>(code);
  };
  std::string text = name + ": ";
  // What is missing may have been meant by an option that there is not, and what is too much may be
  // the value of one.
  if ((is(CLI::ExitCodes::RequiredError) || is(CLI::ExitCodes::ExtrasError)) && !unknown.empty()) {
    text += fmt::format("there is no option {}", fmt::join(unknown, ", "));
    std::string help;
    for (const std::string& word : unknown)
      if (const std::string more = help_with_option(word, *command);
          help.find(more) == std::string::npos)
        help += more;
    text += help;
  } else {
    text += reason(*command, error);
  }
  return text + "\n" + name + " --help tells what it takes";
}

}  // namespace

int run_command_line(const std::string& program, const std::string& description,
                     const std::string& version, const std::function<void(Command)>& add_commands,
                     int argc, char** argv) {
  CLI::App app(description, program);
  app.formatter(std::make_shared<HelpFormat>());
  app.set_version_flag("--version", version, "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.require_subcommand(1);
  add_commands(Command(&app));
  app.add_subcommand("help", "Print the help of a command: help COMMAND")->allow_extras();
  std::vector<std::string> arguments = arguments_of(argc, argv);
  const std::string first = arguments.empty() ? "" : arguments.front();
  const std::vector<std::string> commands = names_of_commands(app);
  if (first.empty() || (!first.starts_with("-") && !std::ranges::count(commands, first))) {
    if (!first.empty())
      log::error("there is no command '{}'{}", first, suggestion(first, commands));
    std::fputs(((first.empty() ? "\n" : "\n\n") + app.help()).c_str(), stderr);
    return 2;
  }
  try {
    std::ranges::reverse(arguments);  // as CLI11 wants them
    app.parse(arguments);
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help and --version
      std::ostringstream text;
      app.exit(error, text, text);
      fmt::print("{}", text.str());
      return 0;
    }
    throw ConfigError(sentence(app, error));
  }
}

}  // namespace qlora::cli
