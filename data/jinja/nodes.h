// The parsed template: expressions that evaluate and statements that execute, in the words of
// jinja2's grammar. Nodes point at each other; the Tree owns them all, so that freeing a long
// chain of them needs no stack.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/jinja/callables.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {

struct Node {
  explicit Node(size_t at) : offset(at) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  virtual ~Node() = default;
  const size_t offset;  // into the source, for messages
};

struct Expression : Node {
  using Node::Node;
  // Charges one unit, and gives a Failure its place.
  Value evaluate(Runtime& runtime, Scope& scope) const;

 protected:
  virtual Value compute(Runtime& runtime, Scope& scope) const = 0;
};

enum class Flow { kNext, kBreak, kContinue };

struct Statement : Node {
  using Node::Node;
  Flow execute(Runtime& runtime, Scope& scope) const;

 protected:
  virtual Flow run(Runtime& runtime, Scope& scope) const = 0;
};

using Body = std::vector<const Statement*>;
// A loop's body is run again: what follows it is not only what stands behind the loop.
enum class Repeats { kNo, kYes };
Flow execute_all(const Body& body, Runtime& runtime, Scope& scope, Repeats repeats = Repeats::kNo);
std::string capture(const Body& body, Runtime& runtime, Scope& scope);

// f(a, *more, k=v, **others) as written.
struct CallArguments {
  std::vector<const Expression*> positional;
  std::vector<std::pair<std::string, const Expression*>> keyword;
  const Expression* more_positional = nullptr;
  const Expression* more_keyword = nullptr;

  Arguments evaluate(Runtime& runtime, Scope& scope) const;
};

// What an assignment writes to: a name, a namespace's attribute, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;      // of the namespace `name`
  std::vector<Target> parts;  // a tuple, if not empty
  size_t offset = 0;

  void assign(Runtime& runtime, Scope& scope, const Value& value) const;
};

class Tree {
 public:
  template <typename T, typename... Args>
  T* make(Args&&... args) {
    auto node = std::make_unique<T>(std::forward<Args>(args)...);
    T* made = node.get();
    nodes_.push_back(std::move(node));
    return made;
  }
  Body body;
  bool marks_generation = false;  // it has {% generation %} blocks

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace qlora::data::jinja
