#include "recipes/yaml/overrides.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace qlora::recipes {
namespace {

// "train[0]" -> {"train", 0}; "lr" -> {"lr", nothing}.
struct Step {
  std::string key;
  std::optional<size_t> index;
};

std::optional<std::vector<Step>> steps_of(const std::string& path) {
  std::vector<Step> steps;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    Step step{path.substr(begin, end - begin), {}};
    if (const size_t bracket = step.key.find('['); bracket != std::string::npos) {
      size_t index = 0;
      const char* first = step.key.data() + bracket + 1;
      const char* last = step.key.data() + step.key.size() - 1;
      const auto [stop, error] = std::from_chars(first, last, index);
      if (step.key.back() != ']' || error != std::errc() || stop != last) return std::nullopt;
      step.index = index;
      step.key.resize(bracket);
    }
    if (step.key.empty()) return std::nullopt;
    steps.push_back(std::move(step));
    begin = end + 1;
  }
  return steps;
}

Node::Entry& entry_of(Node& map, const std::string& key, const Place& place) {
  for (Node::Entry& entry : map.entries)
    if (entry.key == key) return entry;
  map.entries.push_back({key, place, {}});
  return map.entries.back();
}

}  // namespace

void apply_override(const std::string& text, ProblemList& problems, Node& root) {
  const Place place{"--set " + text};
  const size_t equals = text.find('=');
  const auto steps = steps_of(text.substr(0, equals));
  if (equals == std::string::npos || !steps) {
    problems.add(place, "an override is written section.key=value, such as optim.lr=1e-4");
    return;
  }
  Node value = parse_override(text.substr(equals + 1), place.source, problems);
  Node* node = &root;
  Node::Entry* entry = nullptr;
  for (const Step& step : *steps) {
    if (node->kind == Node::Kind::kNull) *node = Node::map({});
    if (!node->is_map()) {
      problems.add(place,
                   fmt::format("'{}' lies in no map, but in {}", step.key, node->describe()));
      return;
    }
    entry = &entry_of(*node, step.key, place);
    node = &entry->value;
    if (!step.index) continue;
    if (!node->is_list() || *step.index >= node->items.size()) {
      problems.add(place, fmt::format("there is no {}[{}] to change; it has {} entries", step.key,
                                      *step.index, node->items.size()));
      return;
    }
    node = &node->items[*step.index];
  }
  entry->place = place;
  *node = std::move(value);
}

}  // namespace qlora::recipes
