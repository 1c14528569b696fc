// The expressions of the template language.
#pragma once

#include <optional>

#include "data/jinja/nodes.h"

namespace qlora::data::jinja {

struct Constant final : Expression {
  Constant(size_t at, Value constant) : Expression(at), value(std::move(constant)) {}
  Value compute(Runtime&, Scope&) const override { return value; }
  const Value value;  // no object
};

struct Name final : Expression {
  Name(size_t at, std::string its_name) : Expression(at), name(std::move(its_name)) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  const std::string name;
};

struct ListLiteral final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  std::vector<const Expression*> items;
  bool is_tuple = false;
};

struct DictLiteral final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  std::vector<std::pair<const Expression*, const Expression*>> entries;
};

struct Attribute final : Expression {
  Attribute(size_t at, const Expression* of, std::string its_name)
      : Expression(at), object(of), name(std::move(its_name)) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* object;
  const std::string name;
};

struct Item final : Expression {
  Item(size_t at, const Expression* of, const Expression* its_key)
      : Expression(at), object(of), key(its_key) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* object;
  const Expression* key;
};

struct Slice final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* object = nullptr;
  const Expression* begin = nullptr;  // each nullptr if left out
  const Expression* end = nullptr;
  const Expression* step = nullptr;
};

struct Call final : Expression {
  Call(size_t at, const Expression* what) : Expression(at), callee(what) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* callee;
  CallArguments arguments;
};

struct Filter final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* input = nullptr;
  MethodBody filter = nullptr;  // nullptr: there is none of this name
  std::string name;
  CallArguments arguments;
};

// Stands for the text of {% filter %} and {% set x | filter %} blocks.
struct FilterInput final : Expression {
  using Expression::Expression;
  static constexpr std::string_view kVariable = "\x01 captured";  // no name can be spelled so
  Value compute(Runtime& runtime, Scope& scope) const override;
};

struct Test final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* input = nullptr;
  TestBody test = nullptr;  // nullptr: there is none of this name
  std::string name;
  bool is_negated = false;
  CallArguments arguments;
};

struct Unary final : Expression {
  using Operator = Value (*)(Runtime&, const Value&);
  Unary(size_t at, Operator operation, const Expression* of)
      : Expression(at), apply(operation), operand(of) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  Operator apply;
  const Expression* operand;
};

struct Binary final : Expression {
  using Operator = Value (*)(Runtime&, const Value&, const Value&);
  Binary(size_t at, Operator operation, const Expression* a, const Expression* b)
      : Expression(at), apply(operation), left(a), right(b) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  Operator apply;
  const Expression* left;
  const Expression* right;
};

// a ~ b ~ c
struct Concatenation final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  std::vector<const Expression*> parts;
};

// a < b <= c, each operand evaluated once.
struct Comparison final : Expression {
  using Relation = bool (*)(Runtime&, const Value&, const Value&);
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* first = nullptr;
  std::vector<std::pair<Relation, const Expression*>> rest;

 private:
  // `first` where this is `list | length > 1` or the like: of a list whose prefixes are wanted not
  // the length is needed, but whether it is beyond the number.
  std::optional<Value> length_to_compare(Runtime& runtime, Scope& scope) const;
};

// and, or: the operand that decides, as in Python.
struct Logic final : Expression {
  Logic(size_t at, bool is_and_operator) : Expression(at), is_and(is_and_operator) {}
  Value compute(Runtime& runtime, Scope& scope) const override;
  const bool is_and;
  std::vector<const Expression*> operands;
};

// a if condition else b
struct Conditional final : Expression {
  using Expression::Expression;
  Value compute(Runtime& runtime, Scope& scope) const override;
  const Expression* condition = nullptr;
  const Expression* then = nullptr;
  const Expression* otherwise = nullptr;  // nullptr: an Undefined
};

}  // namespace qlora::data::jinja
