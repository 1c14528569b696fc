#include "recipes/import/conversions.h"

#include <cctype>
#include <charconv>
#include <filesystem>
#include <optional>
#include <sstream>

#include "base/ascii_case.h"
#include "base/hub_id.h"

namespace qlora::recipes {
namespace {

bool is_number(const std::string& text) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  double number = 0;
  const auto [stop, error] = std::from_chars(begin, end, number);
  return begin != end && error == std::errc() && stop == end &&
         std::isdigit(static_cast<unsigned char>(text.back() == '.' ? '0' : text.back()));
}

std::string translated(const Words& words, const std::string& word) {
  for (const auto& [theirs, ours] : words)
    if (ascii_lower_case(word) == ascii_lower_case(theirs)) return ours;
  return word;
}

Node list_node(const std::vector<std::string>& items) {
  std::vector<Node> nodes;
  for (const std::string& item : items) nodes.push_back(plain(Node::string(item)));
  return Node::list(std::move(nodes));
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  return begin == std::string::npos
             ? ""
             : text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

constexpr const char* kMainRevision = "main";  // which is that of a hub id without one

// "org/name@REV" of the path and the revision; empty if the path is no hub id, or has a revision.
std::string with_revision(const std::string& path, const Node& revision, const Draft& draft) {
  const auto plain = hub_id_of(path);
  if (!plain || !plain->revision.empty() || is_off(revision)) return "";
  if (text(&revision) == kMainRevision) return "";
  std::error_code unknown;  // a directory beside the file
  if (std::filesystem::exists(std::filesystem::path(draft.directory()) / path, unknown)) return "";
  const std::string both = path + "@" + text(&revision);
  return hub_id_of(both) ? both : "";
}

}  // namespace

Node plain(const Node& node) {
  Node value = node;
  value.place = {};
  for (Node& item : value.items) item = plain(item);
  for (Node::Entry& entry : value.entries) entry.value = plain(entry.value);
  if (!node.is_scalar()) return value;
  const std::string word = ascii_lower_case(node.text);
  if (!node.quoted && (word == "true" || word == "yes" || word == "on"))
    return Node::scalar("true");
  if (!node.quoted && (word == "false" || word == "no" || word == "off"))
    return Node::scalar("false");
  return is_number(node.text) ? Node::scalar(node.text) : Node::string(node.text);
}

bool is_true(const Node* node) {
  return node && node->is_scalar() &&
         (plain(*node).text == "true" || ascii_lower_case(node->text) == "true");
}

bool is_off(const Node& node) {
  if (node.kind == Node::Kind::kNull) return true;
  if (node.is_list()) return node.items.empty();
  if (node.is_map()) return node.entries.empty();
  const std::string word = ascii_lower_case(node.text);
  for (const char* off : {"", "false", "no", "off", "none", "null"})
    if (word == off) return true;
  double number = 1;
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, number);
  return error == std::errc() && stop == end && number == 0;
}

const Node* beside(const Found& found, const std::string& key) {
  const Node::Entry* entry = found.siblings.find(key);
  return entry && entry->value.kind != Node::Kind::kNull ? &entry->value : nullptr;
}

const Node* in_file(const Node& root, const std::string& path) {
  const Node* node = &root;
  std::istringstream parts(path);
  for (std::string part; std::getline(parts, part, '.');) {
    const Node::Entry* entry = node->is_map() ? node->find(part) : nullptr;
    if (!entry || entry->value.kind == Node::Kind::kNull) return nullptr;
    node = &entry->value;
  }
  return node;
}

std::string text(const Node* node, const std::string& otherwise) {
  return node && node->is_scalar() ? node->text : otherwise;
}

std::vector<std::string> texts(const Node& node) {
  std::vector<std::string> items;
  if (node.is_list()) {
    for (const Node& item : node.items) items.push_back(item.text);
    return items;
  }
  std::istringstream parts(node.text);
  for (std::string part; std::getline(parts, part, ',');)
    if (!trimmed(part).empty()) items.push_back(trimmed(part));
  return items;
}

ToolKey read_by(std::string name, std::string here, std::string note,
                std::function<void(const Found&, const ToolKey&, Draft&)> convert,
                std::string value) {
  ToolKey key;
  key.name = std::move(name);
  key.here = std::move(here);
  key.note = std::move(note);
  key.value = std::move(value);
  key.convert = std::move(convert);
  return key;
}

ToolKey same(std::string name, std::string here, std::string note) {
  return read_by(std::move(name), std::move(here), std::move(note),
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   if (!found.value.is_scalar() && is_off(found.value))
                     return draft.without_effect(found, "it is empty");
                   draft.set(found, key.here, plain(found.value));
                 });
}

ToolKey longest_row(std::string name) {
  ToolKey key = read_by(std::move(name), "data.sequence_length", "",
                        [](const Found& found, const ToolKey& key, Draft& draft) {
                          if (found.value.kind != Node::Kind::kNull)
                            return same(found.key, key.here).convert(found, key, draft);
                          draft.set(found, "data.on_overlength", Node::string("error"));
                        });
  key.takes_null = true;
  return key;
}

std::vector<ToolKey> model_path(std::string name, std::string revision) {
  const auto read_path = [revision](const Found& found, const ToolKey& key, Draft& draft) {
    const Node* wanted = beside(found, revision);
    const std::string both =
        wanted ? with_revision(text(&found.value), *wanted, draft) : std::string();
    if (both.empty()) return same(found.key, key.here).convert(found, key, draft);
    draft.set(found, key.here, Node::string(both));
  };
  const auto read_revision = [name](const Found& found, const ToolKey& key, Draft& draft) {
    if (is_off(found.value)) return draft.without_effect(found, "it is off");
    if (text(&found.value) == kMainRevision)
      return draft.without_effect(found, "main is what is taken without a revision");
    if (with_revision(text(beside(found, name)), found.value, draft).empty())
      return draft.refuse(found, "model.path names the revision's directory, or is org/name@REV");
    draft.take(found, key.here);  // read with the path
  };
  return {read_by(name, "model.path", "", read_path),
          read_by(revision, "model.path", "or the revision's directory", read_revision,
                  "org/name@REV")};
}

ToolKey when_true(std::string name, std::string here, std::string value, std::string note) {
  return read_by(
      std::move(name), std::move(here), std::move(note),
      [](const Found& found, const ToolKey& key, Draft& draft) {
        if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
        ProblemList none("");
        draft.set(found, key.here, plain(parse_override(key.value, "", none)));
      },
      std::move(value));
}

ToolKey inverted(std::string name, std::string here, std::string note) {
  return read_by(std::move(name), std::move(here), std::move(note),
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   draft.set(found, key.here,
                             Node::scalar(is_true(&found.value) ? "false" : "true"));
                 });
}

ToolKey renamed(std::string name, std::string here, Words words, std::string note) {
  return read_by(std::move(name), std::move(here), std::move(note),
                 [words = std::move(words)](const Found& found, const ToolKey& key, Draft& draft) {
                   if (!found.value.is_scalar())
                     return draft.set(found, key.here, plain(found.value));
                   const std::string word = translated(words, found.value.text);
                   draft.set(found, key.here, plain(Node::string(word)));
                 });
}

ToolKey list_of(std::string name, std::string here, Words words, std::string note) {
  return read_by(std::move(name), std::move(here), std::move(note),
                 [words = std::move(words)](const Found& found, const ToolKey& key, Draft& draft) {
                   std::vector<std::string> items = texts(found.value);
                   for (std::string& item : items) item = translated(words, item);
                   if (items.empty()) return draft.without_effect(found, "it is empty");
                   draft.set(found, key.here, list_node(items));
                 });
}

ToolKey idle(std::string name, std::string note) {
  return read_by(std::move(name), "", std::move(note),
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   draft.without_effect(found, key.note);
                 });
}

ToolKey refused(std::string name, std::string note) {
  ToolKey key = read_by(std::move(name), "", std::move(note),
                        [](const Found& found, const ToolKey& key, Draft& draft) {
                          if (is_off(found.value)) return draft.without_effect(found, "it is off");
                          draft.refuse(found, key.note);
                        });
  key.is_refused = true;
  return key;
}

std::vector<ToolKey> idle_all(const std::vector<std::string>& names, const std::string& note) {
  std::vector<ToolKey> keys;
  for (const std::string& name : names) keys.push_back(idle(name, note));
  return keys;
}

std::vector<ToolKey> refused_all(const std::vector<std::string>& names, const std::string& note) {
  std::vector<ToolKey> keys;
  for (const std::string& name : names) keys.push_back(refused(name, note));
  return keys;
}

}  // namespace qlora::recipes
