#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "recipes/fields/fields.h"
#include "recipes/import/tool.h"

namespace qlora::recipes {
namespace {

std::vector<std::string> names_of_tools() {
  std::vector<std::string> names;
  for (const Tool& tool : tools()) names.push_back(tool.name);
  return names;
}

bool matches(const std::string& pattern, const std::string& name) {
  return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1))
                                : pattern == name;
}

bool is_recipe(const Node& root) {
  const auto is_section = [](const Node::Entry& entry) {
    return std::any_of(sections().begin(), sections().end(),
                       [&](const Section& section) { return section.name == entry.key; });
  };
  return root.find("model") && root.find("data") &&
         std::all_of(root.entries.begin(), root.entries.end(), is_section);
}

}  // namespace

const std::vector<Tool>& tools() {
  static const std::vector<Tool> all = {trl_tool(), axolotl_tool(), llama_factory_tool(),
                                        torchtune_tool(), peft_tool()};
  return all;
}

const Tool& find_tool(const std::string& name) {
  for (const Tool& tool : tools())
    if (tool.name == name) return tool;
  fail<ConfigError>("--from must be one of {}, got '{}'", fmt::join(names_of_tools(), ", "), name);
}

const Tool& detect_tool(const Node& root) {
  if (is_recipe(root))
    throw ConfigError("it has the sections of a recipe of this program; train it as it is");
  for (const Tool& tool : tools())
    if (tool.why_not_read && !tool.why_not_read(root).empty()) return tool;
  const Tool* best = nullptr;
  size_t most = 0;
  for (const Tool& tool : tools()) {
    const auto known = static_cast<size_t>(
        std::count_if(root.entries.begin(), root.entries.end(), [&](const Node::Entry& entry) {
          return find_key(tool, entry.key) || has_keys_within(tool, entry.key);
        }));
    if (known > most) {
      most = known;
      best = &tool;
    }
  }
  if (!best)
    fail<ConfigError>("no key of it is known of any tool; --from says which one wrote it: {}",
                      fmt::join(names_of_tools(), ", "));
  return *best;
}

const ToolKey* find_key(const Tool& tool, const std::string& name) {
  const ToolKey* by_pattern = nullptr;
  for (const ToolKey& key : tool.keys) {
    if (key.name == name) return &key;
    if (!by_pattern && matches(key.name, name)) by_pattern = &key;
  }
  return by_pattern;
}

bool has_keys_within(const Tool& tool, const std::string& name) {
  return std::any_of(tool.keys.begin(), tool.keys.end(),
                     [&](const ToolKey& key) { return key.name.starts_with(name + "."); });
}

void add_missing(std::vector<ToolKey>& keys, const std::vector<ToolKey>& more) {
  const size_t own = keys.size();
  for (const ToolKey& key : more)
    if (std::none_of(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(own),
                     [&](const ToolKey& there) { return there.name == key.name; }))
      keys.push_back(key);
}

}  // namespace qlora::recipes
