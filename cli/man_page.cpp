#include "cli/man_page.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

namespace qlora::cli {
namespace {

std::string names_joined(const std::vector<CommandFacts>& chain, const char* between) {
  std::string text;
  for (const CommandFacts& command : chain) text += (text.empty() ? "" : between) + command.name;
  return text;
}

// Text that roff prints as it is: no escapes, no hyphens that become dashes, no line that is a
// request.
std::string roff(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\')
      escaped += "\\e";
    else if (c == '-')
      escaped += "\\-";
    else
      escaped += c;
  }
  return escaped.starts_with('.') || escaped.starts_with('\'') ? "\\&" + escaped : escaped;
}

std::string heading(const std::string& title) { return ".SH " + title + "\n"; }

std::string paragraph(const std::string& term, const std::string& text) {
  return fmt::format(".TP\n{}\n{}\n", term, roff(text));
}

std::string term_of(const OptionFacts& option) {
  if (option.is_place) return "\\fI" + roff(option.names.front()) + "\\fR";
  std::string term;
  for (const std::string& name : option.names)
    term += (term.empty() ? "\\fB" : ", \\fB") + roff(name) + "\\fR";
  return option.value.empty() ? term : term + " \\fI" + roff(option.value) + "\\fR";
}

std::string text_of(const OptionFacts& option) {
  std::string text = option.help;
  if (!option.choices.empty()) text += fmt::format(". One of: {}", fmt::join(option.choices, ", "));
  if (!option.standard.empty()) text += fmt::format(". Default: {}", option.standard);
  if (option.is_required) text += ". Required";
  return text.ends_with('.') ? text : text + ".";
}

std::string synopsis(const std::vector<CommandFacts>& chain) {
  const CommandFacts& command = chain.back();
  std::string text = "\\fB" + roff(names_joined(chain, " ")) + "\\fR [OPTIONS]";
  for (const OptionFacts& option : command.options) {
    if (!option.is_place) continue;
    const std::string name = term_of(option) + (option.repeats ? "..." : "");
    text += option.is_required ? " " + name : " [" + name + "]";
  }
  if (!command.commands.empty()) text += chain.size() == 1 ? " COMMAND" : " [COMMAND]";
  return text + "\n";
}

std::string options_of(const CommandFacts& command, bool places) {
  std::string text;
  for (const OptionFacts& option : command.options)
    if (option.is_place == places) text += paragraph(term_of(option), text_of(option));
  return text;
}

}  // namespace

std::string man_page(const std::vector<CommandFacts>& chain) {
  const CommandFacts& command = chain.back();
  const std::string name = names_joined(chain, "-");
  std::string capitals = name;
  std::ranges::transform(capitals, capitals.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::string page =
      fmt::format(".TH \"{}\" 1 \"\" \"qlora {}\" \"qlora\"\n", roff(capitals), QLORA_VERSION);
  page += heading("NAME") + roff(name) + " \\- " + roff(command.help) + "\n";
  page += heading("SYNOPSIS") + synopsis(chain);
  if (const std::string places = options_of(command, true); !places.empty())
    page += heading("ARGUMENTS") + places;
  page += heading("OPTIONS") + options_of(command, false);
  if (!command.commands.empty()) page += heading("COMMANDS");
  for (const CommandFacts& below : command.commands)
    page += paragraph("\\fB" + roff(below.name) + "\\fR", below.help);
  page += heading("\"EXIT STATUS\"") +
          "0 done, 1 the machine failed, 2 the input is wrong, 3 the training diverged, 130 "
          "interrupted.\n";
  std::string others;
  const auto add = [&others](const std::string& other) {
    others += (others.empty() ? "\\fB" : ", \\fB") + roff(other) + "\\fR(1)";
  };
  if (chain.size() > 1) add(names_joined({chain.begin(), chain.end() - 1}, "-"));
  for (const CommandFacts& below : command.commands) add(name + "-" + below.name);
  return others.empty() ? page : page + heading("\"SEE ALSO\"") + others + "\n";
}

std::string man_file(const std::vector<CommandFacts>& chain) {
  return names_joined(chain, "-") + ".1";
}

}  // namespace qlora::cli
