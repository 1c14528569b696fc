#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <utility>

#include "io/user_path.h"

namespace qlora::cli {

Option Option::required() const { return Option(option_->required()); }
Option Option::with_shown_default() const { return Option(option_->capture_default_str()); }
Option Option::positive() const { return Option(option_->check(CLI::PositiveNumber)); }
Option Option::not_negative() const { return Option(option_->check(CLI::NonNegativeNumber)); }
Option Option::between(double low, double high) const {
  return Option(option_->check(CLI::Range(low, high)));
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

// The options and places that take paths. Shells leave a ~ behind "=" as it is.
bool takes_path(const std::string& name) {
  for (const char* path :
       {"RECIPE", "RUN_DIR", "PATH", "--model", "--adapter", "--output", "--data", "--tokenizer",
        "--template", "--messages", "--context", "--merge-base", "--resume", "--from"})
    if (name == path) return true;
  return false;
}

}  // namespace

template <typename T>
Option Command::add_option(const std::string& name, T& value, const std::string& help) const {
  CLI::Option* option = app_->add_option(name, value, help);
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

int run_command_line(const std::string& program, const std::string& description,
                     const std::string& version, const std::function<void(Command)>& add_commands,
                     int argc, char** argv) {
  CLI::App app(description, program);
  app.set_version_flag("--version", version);
  app.require_subcommand(1);
  add_commands(Command(&app));
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;  // --help and --version are 0
  }
}

}  // namespace qlora::cli
