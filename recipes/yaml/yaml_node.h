// A YAML document as a plain tree in which every key and value knows where it stands, so that each
// complaint about a recipe can point at its line and column. yaml-cpp is seen by yaml_node.cpp
// alone.
#pragma once

#include <string>
#include <vector>

#include "recipes/yaml/problems.h"

namespace qlora::recipes {

struct Node {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  std::string text;            // of a scalar
  bool quoted = false;         // a scalar in quotes is text, whatever it looks like
  std::vector<Node> items;     // of a list
  std::vector<Entry> entries;  // of a map, in the order of the file
  Place place;

  static Node scalar(std::string text);  // a number or a word
  static Node string(
      std::string text);  // in quotes where the plain text would read as another type
  static Node list(std::vector<Node> items);
  static Node map(std::vector<Entry> entries);
  static Entry entry(std::string key, Node value);  // without a place

  bool is_scalar() const { return kind == Kind::kScalar; }
  bool is_list() const { return kind == Kind::kList; }
  bool is_map() const { return kind == Kind::kMap; }
  const Entry* find(const std::string& key) const;  // of a map; nullptr if there is none
  // For messages: "the list [1, 2]", "'abc'", "a map", "nothing".
  std::string describe() const;
};

struct Node::Entry {
  std::string key;
  Place place;  // of the key
  Node value;
};

// The one document of `text`; an empty one is a null node. Anchors and aliases are expanded.
// Duplicate keys go to `problems`, the first one counts. ConfigError at source:line:column if the
// text is not valid YAML, has several documents, tags, merge keys or keys that are not scalars, is
// nested deeper than 32 or expands to more than 20,000 nodes.
Node parse_yaml(const std::string& text, const std::string& source, ProblemList& problems);
// The same for the value of an override, whose places have no line.
Node parse_override(const std::string& text, const std::string& source, ProblemList& problems);

// The node in YAML's flow style, on one line: [a, b], {path: rows.jsonl}, "two\nlines".
std::string to_yaml(const Node& node);

}  // namespace qlora::recipes
