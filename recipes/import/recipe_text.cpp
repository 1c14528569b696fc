#include "recipes/import/recipe_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "recipes/fields/fields.h"

namespace qlora::recipes {
namespace {

// A key or a name of the file may hold anything; a comment ends with its line.
std::string commented(std::string line) {
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return "# " + line;
}

std::string head(const Draft& draft, const std::string& tool, const std::string& source) {
  std::string text =
      commented(fmt::format("Made by `qlora import` of {}, a file of {}. Relative paths are "
                            "relative to this file.",
                            std::filesystem::path(source).filename().string(), tool)) +
      "\n";
  for (const Outcome& outcome : draft.outcomes())
    if (outcome.fate == Fate::kRefused || outcome.fate == Fate::kUnknown)
      text += commented(fmt::format("Not taken over: {} ({})", outcome.key, outcome.reason)) + "\n";
  for (const std::string& warning : draft.warnings())
    text += commented("To know: " + warning) + "\n";
  return text;
}

// The lines of data.train or data.eval, behind "# " while something of them must be filled in.
std::string dataset_lines(const Draft& draft, const std::string& here, const std::string& key) {
  const std::vector<Node> entries = draft.datasets(here);
  if (entries.empty()) return "";
  const bool open = std::any_of(draft.fill_ins().begin(), draft.fill_ins().end(),
                                [&](const FillIn& fill) { return fill.here == here; });
  const std::string begin = open ? "  # " : "  ";
  std::string text = fmt::format("{}{}:\n", begin, key);
  for (const Node& entry : entries) text += fmt::format("{}  - {}\n", begin, to_yaml(entry));
  return text;
}

std::string fill_in_lines(const Draft& draft, const std::string& here) {
  std::string text;
  for (const FillIn& fill : draft.fill_ins()) {
    if (fill.here != here) continue;
    text += fmt::format("  {}\n", commented("Fill in: " + fill.reason));
    if (!fill.line.empty()) text += fmt::format("  {}\n", commented(fill.line));
  }
  return text;
}

std::string section_lines(const Draft& draft, const Section& section) {
  std::string text;
  bool is_empty = true;
  for (const Field<Recipe>& field : section.fields) {
    const std::string here = section.name + "." + field.key;
    text += fill_in_lines(draft, here);
    const std::string datasets = dataset_lines(draft, here, field.key);
    text += datasets;
    is_empty &= datasets.empty() || datasets.starts_with("  # ");
    const auto found = draft.values().find(here);
    if (found == draft.values().end()) continue;
    is_empty = false;
    text += fmt::format("  {}: {}  {}\n", field.key, to_yaml(found->second.value),
                        commented(found->second.origin));
  }
  if (text.empty()) return "";
  return (is_empty ? commented(section.name) : section.name) + ":\n" + text;
}

}  // namespace

std::string recipe_text(const Draft& draft, const std::string& tool, const std::string& source) {
  std::string text = head(draft, tool, source);
  for (const Section& section : sections()) text += section_lines(draft, section);
  return text;
}

std::vector<std::string> default_lines(const Draft& draft, const std::string& tool) {
  std::vector<std::string> lines;
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields) {
      const auto found = draft.values().find(section.name + "." + field.key);
      if (found != draft.values().end() && found->second.origin == default_origin(tool))
        lines.push_back(fmt::format("{}: {}", found->first, to_yaml(found->second.value)));
    }
  return lines;
}

}  // namespace qlora::recipes
