#include "recipes/yaml/dataset_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "io/user_path.h"
#include "recipes/fields/fields.h"
#include "recipes/yaml/overrides.h"

namespace qlora::recipes {
namespace {

// A separator as a command line can write it: \n, \t and \\ stand for a line break, a tab and a
// backslash, and quotes around it are those of a recipe.
std::string separator_of(std::string text) {
  if (text.size() > 1 && text.starts_with('"') && text.ends_with('"'))
    text = text.substr(1, text.size() - 2);
  std::string separator;
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    const bool is_escape = next == 'n' || next == 't' || next == '\\';
    separator += !is_escape ? text[i] : next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
    if (is_escape) ++i;
  }
  return separator;
}

// The value of an option: of a text every character is meant, anything else is YAML.
Node node_of(const Field<data::DatasetOptions>& field, const std::string& value,
             const std::string& source, ProblemList& problems) {
  if (field.type != "text") return parse_override(value, source, problems);
  Node node = Node::string(field.key == "separator" ? separator_of(value) : value);
  node.place = {source};
  return node;
}

}  // namespace

std::string dataset_option(const std::string& key) {
  std::string option = "--" + key;
  std::ranges::replace(option, '_', '-');
  return option;
}

data::DatasetOptions dataset_choice(const std::string& path, data::DatasetOptions start,
                                    const std::map<std::string, std::string>& values) {
  ProblemList problems("--data");
  data::DatasetOptions rows{path, start.format, start.fields, start.separator};
  rows.system = start.system;
  start = std::move(rows);
  const std::string started_as = start.format;
  for (const Field<data::DatasetOptions>& field : dataset_fields()) {
    const auto value = values.find(field.key);
    if (value == values.end() || value->second.empty()) continue;
    const std::string option = dataset_option(field.key);
    const Node node = node_of(field, value->second, option + " " + value->second, problems);
    field.read(node, option, problems, start);
    if (start.format != started_as && field.key == "format") start = {path, start.format, {}};
  }
  problems.throw_if_any();
  return start;
}

void set_data_keys(const std::vector<std::string>& overrides, Recipe& recipe) {
  ProblemList problems("--set");
  const std::string template_before = recipe.data.chat_template;
  Node root = Node::map({});
  for (const std::string& override_text : overrides) apply_override(override_text, problems, root);
  for (const Node::Entry& entry : root.entries) {
    if (entry.key != "data" || !entry.value.is_map()) {
      problems.add(entry.place,
                   "only keys of the section data can be set here, such as data.chat_template");
      continue;
    }
    for (const Section& section : sections())
      if (section.name == "data")
        read_fields(entry.value, "data", section.fields, problems, recipe);
  }
  problems.throw_if_any();
  if (recipe.data.chat_template != template_before) recipe.data.tool_use_template.clear();
  recipe.data.chat_template = io::expand_home(recipe.data.chat_template);
  recipe.data.cache_dir = io::expand_home(recipe.data.cache_dir);
}

}  // namespace qlora::recipes
