// Nodes made by the program, and any node as text.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/ascii_case.h"
#include "base/utf8.h"
#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {
namespace {

bool reads_as_itself(const std::string& text) {
  static constexpr const char* kOtherTypes[] = {"true", "false", "null", "yes", "no",
                                                "on",   "off",   "y",    "n"};
  const std::string lower = ascii_lower_case(text);
  if (std::find(std::begin(kOtherTypes), std::end(kOtherTypes), lower) != std::end(kOtherTypes))
    return false;
  const auto letter = [](unsigned char c) { return std::isalpha(c) || c == '_' || c == '/'; };
  const auto inside = [&](unsigned char c) {
    return letter(c) || std::isdigit(c) || c == '.' || c == '-';
  };
  return !text.empty() && letter(text[0]) && std::all_of(text.begin(), text.end(), inside);
}

// Double quotes: the one style of YAML that can hold every text.
std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\t':
        quoted += "\\t";
        break;
      case '\r':
        quoted += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
          quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else
          quoted += c;
    }
  }
  return quoted + '"';
}

}  // namespace

Node Node::scalar(std::string text) {
  Node node;
  node.kind = Kind::kScalar;
  node.text = std::move(text);
  return node;
}

Node Node::string(std::string text) {
  Node node = scalar(std::move(text));
  node.quoted = !reads_as_itself(node.text);
  return node;
}

Node Node::list(std::vector<Node> items) {
  Node node;
  node.kind = Kind::kList;
  node.items = std::move(items);
  return node;
}

Node Node::map(std::vector<Entry> entries) {
  Node node;
  node.kind = Kind::kMap;
  node.entries = std::move(entries);
  return node;
}

Node::Entry Node::entry(std::string key, Node value) {
  Entry entry;
  entry.key = std::move(key);
  entry.value = std::move(value);
  return entry;
}

const Node::Entry* Node::find(const std::string& key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

std::string Node::describe() const {
  const auto shortened = [](const std::string& full) { return shortened_utf8(full, 60); };
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return quoted ? "the text " + shortened(quote(text)) : fmt::format("'{}'", shortened(text));
    case Kind::kList:
      return "the list " + shortened(to_yaml(*this));
    case Kind::kMap:
      return "the map " + shortened(to_yaml(*this));
  }
  return "";
}

std::string to_yaml(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return "null";
    case Node::Kind::kScalar:
      return node.quoted ? quote(node.text) : node.text;
    case Node::Kind::kList: {
      std::vector<std::string> items;
      for (const Node& item : node.items) items.push_back(to_yaml(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
    case Node::Kind::kMap: {
      std::vector<std::string> entries;
      for (const Node::Entry& entry : node.entries)
        entries.push_back(to_yaml(Node::string(entry.key)) + ": " + to_yaml(entry.value));
      return fmt::format("{{{}}}", fmt::join(entries, ", "));
    }
  }
  return "";
}

}  // namespace qlora::recipes
