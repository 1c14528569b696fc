#include "recipes/yaml/yaml_node.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <optional>
#include <sstream>

#include "base/error.h"

namespace qlora::recipes {
namespace {

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxNodes = 20000;  // aliases of aliases grow exponentially

size_t count(const Node& node) {
  size_t total = 1;
  for (const Node& item : node.items) total += count(item);
  for (const Node::Entry& entry : node.entries) total += count(entry.value);
  return total;
}

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& source, bool lines, ProblemList& problems)
      : source_(source), lines_(lines), problems_(problems) {}

  Node take() { return std::move(root_); }
  Place place(const YAML::Mark& mark) const {
    return lines_ && !mark.is_null() ? Place{source_, mark.line + 1, mark.column + 1}
                                     : Place{source_};
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(mark, anchor, make(Node::Kind::kNull, mark));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_tag(mark, tag);
    Node node = make(Node::Kind::kScalar, mark);
    node.text = value;
    node.quoted = tag == "!";
    add(mark, anchor, std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end())
      fail<ConfigError>("{}: an alias must not stand inside the value it repeats",
                        place(mark).str());
    num_nodes_ += count(found->second);
    Node copy = found->second;
    copy.place = place(mark);
    add(mark, 0, std::move(copy));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Node node;
    YAML::anchor_t anchor;
    std::optional<Node::Entry> key;  // of a map: the key that waits for its value
  };

  Node make(Node::Kind kind, const YAML::Mark& mark) const {
    Node node;
    node.kind = kind;
    node.place = place(mark);
    return node;
  }
  // "?" and "!" are what the parser gives plain and quoted scalars; collections have "?" or "".
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag != "?" && tag != "!" && !tag.empty())
      fail<ConfigError>("{}: YAML tags have no meaning in a recipe; leave out '{}'",
                        place(mark).str(), tag);
  }
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            Node::Kind kind) {
    refuse_tag(mark, tag);
    if (stack_.size() == kMaxDepth)
      fail<ConfigError>("{}: nested deeper than {} levels", place(mark).str(), kMaxDepth);
    if (waits_for_key()) refuse_key(place(mark));
    stack_.push_back({make(kind, mark), anchor, {}});
  }
  void close() {
    Open done = std::move(stack_.back());
    stack_.pop_back();
    add(YAML::Mark::null_mark(), done.anchor, std::move(done.node));
  }
  bool waits_for_key() const {
    return !stack_.empty() && stack_.back().node.is_map() && !stack_.back().key;
  }
  [[noreturn]] void refuse_key(const Place& at) const {
    fail<ConfigError>("{}: a key must be a word", at.str());
  }
  void add(const YAML::Mark& mark, YAML::anchor_t anchor, Node node) {
    if (++num_nodes_ > kMaxNodes)
      fail<ConfigError>("{}: a recipe must have at most {} values, aliases expanded",
                        mark.is_null() ? source_ : place(mark).str(), kMaxNodes);
    if (anchor != 0) anchors_[anchor] = node;
    if (stack_.empty()) {
      root_ = std::move(node);
    } else if (stack_.back().node.is_list()) {
      stack_.back().node.items.push_back(std::move(node));
    } else if (!stack_.back().key) {
      add_key(node);
    } else {
      add_value(std::move(node));
    }
  }
  void add_key(const Node& node) {
    if (!node.is_scalar()) refuse_key(node.place);
    if (node.text == "<<" && !node.quoted)
      fail<ConfigError>(
          "{}: merge keys are not read; repeat whole values with anchors, or write "
          "the keys out",
          node.place.str());
    stack_.back().key = Node::Entry{node.text, node.place, {}};
  }
  void add_value(Node node) {
    Open& map = stack_.back();
    if (const Node::Entry* first = map.node.find(map.key->key)) {
      problems_.add(map.key->place, fmt::format("duplicate key '{}'; the first one is at {}",
                                                map.key->key, first->place.str()));
    } else {
      map.key->value = std::move(node);
      map.node.entries.push_back(std::move(*map.key));
    }
    map.key.reset();
  }

  const std::string& source_;
  bool lines_;
  ProblemList& problems_;
  Node root_;
  std::vector<Open> stack_;
  std::map<YAML::anchor_t, Node> anchors_;
  size_t num_nodes_ = 0;
};

bool tab_indents_line(const std::string& text, int line) {
  std::istringstream lines(text);
  std::string content;
  for (int i = 0; i <= line; ++i)
    if (!std::getline(lines, content)) return false;
  return content.substr(0, content.find_first_not_of(" \t")).find('\t') != std::string::npos;
}

Node parse(const std::string& text, const std::string& source, bool lines, ProblemList& problems) {
  TreeBuilder tree(source, lines, problems);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(tree);
    Node root = tree.take();
    TreeBuilder next(source, lines, problems);
    if (parser.HandleNextDocument(next))
      fail<ConfigError>("{}: a recipe must be one YAML document, found a second one", source);
    return root;
  } catch (const YAML::Exception& error) {
    const bool tab = lines && tab_indents_line(text, error.mark.line);
    fail<ConfigError>("{}: not valid YAML: {}{}", tree.place(error.mark).str(), error.msg,
                      tab ? " (YAML indents with spaces; this line begins with a tab)" : "");
  }
}

}  // namespace

Node parse_yaml(const std::string& text, const std::string& source, ProblemList& problems) {
  return parse(text, source, true, problems);
}

Node parse_override(const std::string& text, const std::string& source, ProblemList& problems) {
  return parse(text, source, false, problems);
}

}  // namespace qlora::recipes
