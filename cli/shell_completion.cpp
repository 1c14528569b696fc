#include "cli/shell_completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <utility>
#include <vector>

namespace qlora::cli {
namespace {

// visit(names below the program, command) for each command and those within it.
using Visit = std::function<void(const std::vector<std::string>&, const CommandFacts&)>;

void for_each_command(const CommandFacts& above, const Visit& visit,
                      const std::vector<std::string>& names = {}) {
  for (const CommandFacts& command : above.commands) {
    std::vector<std::string> longer = names;
    longer.push_back(command.name);
    visit(longer, command);
    for_each_command(command, visit, longer);
  }
}

std::string names_of_commands(const CommandFacts& command) {
  std::string names;
  for (const CommandFacts& below : command.commands)
    names += (names.empty() ? "" : " ") + below.name;
  return names;
}

std::string names_of_options(const CommandFacts& command) {
  std::string names;
  for (const OptionFacts& option : command.options)
    if (!option.is_place)
      names += fmt::format("{}{}", names.empty() ? "" : " ", fmt::join(option.names, " "));
  return names;
}

std::string replaced(const std::string& text, char what, const std::string& by) {
  std::string result;
  for (const char c : text) {
    if (c == what)
      result += by;
    else
      result += c;
  }
  return result;
}

// In single quotes, as bash and zsh read them.
std::string shell_quoted(const std::string& text) {
  return "'" + replaced(text, '\'', "'\\''") + "'";
}

}  // namespace

std::string bash_completion(const CommandFacts& program) {
  std::string commands, values, words;
  const auto add = [&](const std::string& name, const CommandFacts& command) {
    for (const OptionFacts& option : command.options) {
      if (option.is_place || option.value.empty()) continue;
      for (const std::string& option_name : option.names)
        values += fmt::format("    '{}:{}') words='{}' value=1 ;;\n", name, option_name,
                              fmt::join(option.choices, " "));
    }
    words += fmt::format("    '{}:'-*) words='{}' ;;\n", name, names_of_options(command));
    std::string others = names_of_commands(command);
    for (const OptionFacts& option : command.options)
      if (option.is_place && !option.choices.empty())
        others += fmt::format("{}", fmt::join(option.choices, " "));
    if (!others.empty()) words += fmt::format("    '{}:'*) words='{}' ;;\n", name, others);
  };
  add("", program);
  for_each_command(program,
                   [&](const std::vector<std::string>& names, const CommandFacts& command) {
                     const std::vector<std::string> above(names.begin(), names.end() - 1);
                     const std::string name = fmt::format("{}", fmt::join(names, " "));
                     commands += fmt::format("      '{}:{}') command='{}' ;;\n",
                                             fmt::join(above, " "), names.back(), name);
                     add(name, command);
                   });
  return fmt::format(
      "# Completes qlora in bash; made by qlora completion bash.\n"
      "_qlora() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}\n"
      "  local command= words= value= i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case \"$command:${{COMP_WORDS[i]}}\" in\n{}    esac\n"
      "  done\n"
      "  case \"$command:$before\" in\n{}  esac\n"
      "  [ -n \"$value\" ] || case \"$command:$word\" in\n{}  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "}}\n"
      "complete -o default -F _qlora qlora\n",
      commands, values, words);
}

namespace {

// '*--set[key=value that replaces one of the recipe]:TEXT:'
std::string zsh_option(const std::string& name, const OptionFacts& option) {
  std::string help;
  for (const char c : option.help)
    help += (c == '[' || c == ']' || c == ':' ? "\\" : "") + std::string(1, c);
  std::string text = fmt::format("*{}[{}]", name, help);
  if (!option.value.empty()) text += fmt::format(":{}:", option.value);
  if (!option.choices.empty()) text += fmt::format("({})", fmt::join(option.choices, " "));
  if (option.takes_path) text += "_files";
  return shell_quoted(text);
}

// Lines of a list of "name:what it does".
std::string zsh_described(const CommandFacts& above, const std::string& indent) {
  std::string text;
  for (const CommandFacts& command : above.commands)
    text += fmt::format("{}{}\n", indent,
                        shell_quoted(command.name + ":" + replaced(command.help, ':', "\\:")));
  return text;
}

}  // namespace

std::string zsh_completion(const CommandFacts& program) {
  std::string cases;
  // Longer names first: "inspect data" before "inspect".
  for_each_command(program,
                   [&](const std::vector<std::string>& names, const CommandFacts& command) {
                     std::string arguments, others = "_files";
                     for (const OptionFacts& option : command.options) {
                       if (option.is_place && !option.choices.empty())
                         others = fmt::format("({})", fmt::join(option.choices, " "));
                       if (option.is_place) continue;
                       for (const std::string& name : option.names)
                         arguments += fmt::format("      {} \\\n", zsh_option(name, option));
                     }
                     if (!command.commands.empty())
                       others = fmt::format("{{ compadd {}; _files }}", names_of_commands(command));
                     const std::string one =
                         fmt::format("  '{} '*)\n    _arguments \\\n{}      '*:argument:{}' ;;\n",
                                     fmt::join(names, " "), arguments, others);
                     cases = one + cases;
                   });
  return fmt::format(
      "#compdef qlora\n"
      "# Completes qlora in zsh; made by qlora completion zsh.\n"
      "_qlora() {{\n"
      "  local -a commands=(\n{}  )\n"
      "  if ((CURRENT == 2)) && [[ $words[2] == -* ]]; then compadd -- {}; return; fi\n"
      "  if ((CURRENT == 2)); then _describe command commands; return; fi\n"
      "  case \"${{words[2,CURRENT-1]}} \" in\n{}  esac\n"
      "}}\n"
      "if [[ $funcstack[1] == _qlora ]]; then _qlora \"$@\"; else compdef _qlora qlora; fi\n",
      zsh_described(program, "    "), names_of_options(program), cases);
}

namespace {

std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, '\\', "\\\\"), '\'', "\\'") + "'";
}

// Holds while the command line has these commands and none of those below the last.
std::string fish_condition(const std::vector<std::string>& names, const CommandFacts& command) {
  if (names.empty()) return "__fish_use_subcommand";
  std::string text;
  for (const std::string& name : names)
    text += fmt::format("{}__fish_seen_subcommand_from {}", text.empty() ? "" : "; and ", name);
  if (!command.commands.empty())
    text += "; and not __fish_seen_subcommand_from " + names_of_commands(command);
  return text;
}

std::string fish_option(const std::string& condition, const OptionFacts& option) {
  std::string text = "complete -c qlora -n " + fish_quoted(condition);
  for (const std::string& name : option.names)
    text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (!option.choices.empty())
    text +=
        fmt::format(" -x -a {}", fish_quoted(fmt::format("{}", fmt::join(option.choices, " "))));
  else if (option.takes_path)
    text += " -r -F";
  else if (!option.value.empty())
    text += " -x";
  return text + " -d " + fish_quoted(option.help) + "\n";
}

}  // namespace

std::string fish_completion(const CommandFacts& program) {
  std::string text = "# Completes qlora in fish; made by qlora completion fish.\n";
  const auto add = [&](const std::vector<std::string>& names, const CommandFacts& command) {
    const std::string condition = fish_condition(names, command);
    for (const CommandFacts& below : command.commands)
      text += fmt::format("complete -c qlora -n {}{} -a {} -d {}\n", fish_quoted(condition),
                          names.empty() ? " -f" : "", below.name, fish_quoted(below.help));
    for (const OptionFacts& option : command.options) {
      if (!option.is_place)
        text += fish_option(condition, option);
      else if (!option.choices.empty())
        text += fmt::format("complete -c qlora -n {} -f -a '{}'\n", fish_quoted(condition),
                            fmt::join(option.choices, " "));
    }
  };
  add({}, program);
  for_each_command(program, add);
  return text;
}

}  // namespace qlora::cli
