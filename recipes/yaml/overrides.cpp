#include "recipes/yaml/overrides.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <utility>

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

// A key beside one that excludes it, and the value with which each does nothing.
struct Excluded {
  const char *key, *without_effect, *other, *others_without_effect;
};
constexpr Excluded kExcluded[] = {
    {"train.max_steps", "0", "train.epochs", "0"},
    {"train.epochs", "0", "train.max_steps", "0"},
    {"data.eval", "[]", "data.eval_fraction", "0"},
    {"data.eval_fraction", "0", "data.eval", "[]"},
    {"data.shuffle", "true", "data.shuffle_block", "0"},
    {"data.shuffle_block", "0", "data.shuffle", "true"},
    {"optim.warmup_ratio", "0", "optim.warmup_steps", "0"},  // the ratio gives way to the steps
};

std::string key_of(const std::string& text) { return text.substr(0, text.find('=')); }

// The map that holds "section.key", and where in it; nothing if it is not there.
std::optional<std::pair<Node*, size_t>> find(Node& root, const std::string& path) {
  const size_t dot = path.find('.');
  for (Node::Entry& section : root.entries) {
    if (section.key != path.substr(0, dot)) continue;
    for (size_t i = 0; i < section.value.entries.size(); ++i)
      if (section.value.entries[i].key == path.substr(dot + 1)) return {{&section.value, i}};
  }
  return std::nullopt;
}

// Whether the value does something; one that is wrong may.
bool acts(const Node& value, const std::string& without_effect) {
  if (value.kind == Node::Kind::kNull) return false;
  if (value.is_list()) return !value.items.empty();
  if (!value.is_scalar()) return true;
  char* end = nullptr;
  const double number = std::strtod(value.text.c_str(), &end);
  const bool is_zero = end != value.text.c_str() && *end == '\0' && number == 0;
  return value.text != without_effect && !(without_effect == "0" && is_zero);
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

std::vector<std::string> leave_out_replaced(const std::vector<std::string>& overrides, Node& root) {
  const auto given = [&overrides](const char* key) {
    return std::ranges::find(overrides, key, key_of) != overrides.end();
  };
  std::vector<std::string> sentences;
  for (const auto& [key, without_effect, other, others_without_effect] : kExcluded) {
    if (!given(key) || given(other)) continue;
    const auto winner = find(root, key), loser = find(root, other);
    if (!winner || !loser) continue;
    const Node& value = winner->first->entries[winner->second].value;
    auto& entries = loser->first->entries;
    const auto replaced = entries.begin() + static_cast<std::ptrdiff_t>(loser->second);
    if (!acts(value, without_effect) || !acts(replaced->value, others_without_effect)) continue;
    sentences.push_back(fmt::format("{} ({}) is left out, since --set gives {}", other,
                                    replaced->place.str(), key));
    entries.erase(replaced);
  }
  return sentences;
}

}  // namespace qlora::recipes
