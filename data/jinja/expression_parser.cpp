#include "data/jinja/expression_parser.h"

#include <algorithm>

#include "data/jinja/numbers.h"
#include "data/jinja/operators.h"

namespace qlora::data::jinja {
namespace {

// Expressions that stand here as operators; plain functions, so that nodes can point at them.
bool is_equal(Runtime& r, const Value& a, const Value& b) { return equal(r, a, b); }
bool is_unequal(Runtime& r, const Value& a, const Value& b) { return !equal(r, a, b); }
bool is_less(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, "<") < 0; }
bool is_at_most(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, "<=") <= 0; }
bool is_greater(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, ">") > 0; }
bool is_at_least(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, ">=") >= 0; }
bool is_in(Runtime& r, const Value& a, const Value& b) { return contains(r, b, a); }
bool is_not_in(Runtime& r, const Value& a, const Value& b) { return !contains(r, b, a); }
Value logical_not(Runtime& r, const Value& a) { return Value::boolean(!is_true(r, a)); }

Comparison::Relation relation_of(const Token& token) {
  if (token.kind != TokenKind::kOperator) return nullptr;
  if (token.text == "==") return is_equal;
  if (token.text == "!=") return is_unequal;
  if (token.text == "<") return is_less;
  if (token.text == "<=") return is_at_most;
  if (token.text == ">") return is_greater;
  if (token.text == ">=") return is_at_least;
  return nullptr;
}

Binary::Operator product_of(const Token& token) {
  if (token.kind != TokenKind::kOperator) return nullptr;
  if (token.text == "*") return multiply;
  if (token.text == "/") return divide;
  if (token.text == "//") return floor_divide;
  if (token.text == "%") return modulo;
  return nullptr;
}

}  // namespace

const Expression* ExpressionParser::parse() {
  const TokenStream::Nesting nesting(stream_);
  const size_t num_unknown = unknown_.size();
  const Expression* value = parse_disjunction();
  while (stream_.is_name("if")) {
    auto* node = tree_.make<Conditional>(stream_.take().offset);
    node->then = value;
    node->condition = parse_disjunction();
    if (stream_.skip_name("else")) node->otherwise = parse();
    forgive(num_unknown);
    value = node;
  }
  return value;
}

const Expression* ExpressionParser::parse_disjunction() {
  const Expression* first = parse_conjunction();
  if (!stream_.is_name("or")) return first;
  auto* node = tree_.make<Logic>(stream_.offset(), false);
  node->operands.push_back(first);
  while (stream_.skip_name("or")) node->operands.push_back(parse_conjunction());
  return node;
}

const Expression* ExpressionParser::parse_conjunction() {
  const Expression* first = parse_negation();
  if (!stream_.is_name("and")) return first;
  auto* node = tree_.make<Logic>(stream_.offset(), true);
  node->operands.push_back(first);
  while (stream_.skip_name("and")) node->operands.push_back(parse_negation());
  return node;
}

const Expression* ExpressionParser::parse_negation() {
  if (!stream_.is_name("not")) return parse_comparison();
  const TokenStream::Nesting nesting(stream_);
  const size_t at = stream_.take().offset;
  return tree_.make<Unary>(at, logical_not, parse_negation());
}

const Expression* ExpressionParser::parse_comparison() {
  const size_t at = stream_.offset();
  const Expression* first = parse_sum();
  Comparison* node = nullptr;
  while (true) {
    Comparison::Relation relation = relation_of(stream_.current());
    if (relation) {
      stream_.take();
    } else if (stream_.skip_name("in")) {
      relation = is_in;
    } else if (stream_.is_name("not") && stream_.ahead().kind == TokenKind::kName &&
               stream_.ahead().text == "in") {
      stream_.take();
      stream_.take();
      relation = is_not_in;
    } else {
      return node ? node : first;
    }
    if (!node) {
      node = tree_.make<Comparison>(at);
      node->first = first;
    }
    node->rest.emplace_back(relation, parse_sum());
  }
}

const Expression* ExpressionParser::parse_sum() {
  const Expression* value = parse_concatenation();
  while (stream_.is_operator("+") || stream_.is_operator("-")) {
    const Token sign = stream_.take();
    value = tree_.make<Binary>(sign.offset, sign.text == "+" ? add : subtract, value,
                               parse_concatenation());
  }
  return value;
}

const Expression* ExpressionParser::parse_concatenation() {
  const Expression* first = parse_product();
  if (!stream_.is_operator("~")) return first;
  auto* node = tree_.make<Concatenation>(stream_.offset());
  node->parts.push_back(first);
  while (stream_.skip_operator("~")) node->parts.push_back(parse_product());
  return node;
}

const Expression* ExpressionParser::parse_product() {
  const Expression* value = parse_power();
  while (const Binary::Operator operation = product_of(stream_.current())) {
    const size_t at = stream_.take().offset;
    value = tree_.make<Binary>(at, operation, value, parse_power());
  }
  return value;
}

const Expression* ExpressionParser::parse_power() {
  const Expression* value = parse_unary();
  while (stream_.is_operator("**")) {
    const size_t at = stream_.take().offset;
    value = tree_.make<Binary>(at, power, value, parse_unary());
  }
  return value;
}

const Expression* ExpressionParser::parse_unary(bool with_filters) {
  const TokenStream::Nesting nesting(stream_);
  const Expression* value = nullptr;
  if (stream_.is_operator("-") || stream_.is_operator("+")) {
    const Token sign = stream_.take();
    value =
        tree_.make<Unary>(sign.offset, sign.text == "-" ? negate : positive, parse_unary(false));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(value);
  return with_filters ? parse_postfix_filters(value) : value;
}

const Expression* ExpressionParser::parse_primary() {
  switch (stream_.current().kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString:
      return parse_string();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return parse_number();
    default:
      break;
  }
  if (stream_.is_operator("(")) return parse_parenthesized();
  if (stream_.is_operator("[")) return parse_list();
  if (stream_.is_operator("{")) return parse_dict();
  stream_.fail_on_token("an expression");
}

const Expression* ExpressionParser::parse_name() {
  const Token token = stream_.take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") {
    return tree_.make<Constant>(token.offset, Value::boolean(true));
  }
  if (name == "false" || name == "False") {
    return tree_.make<Constant>(token.offset, Value::boolean(false));
  }
  if (name == "none" || name == "None") return tree_.make<Constant>(token.offset, None{});
  if (name == "varargs") macro_variables_.varargs = true;
  if (name == "kwargs") macro_variables_.kwargs = true;
  if (name == "caller") macro_variables_.caller = true;
  return tree_.make<Name>(token.offset, name);
}

const Expression* ExpressionParser::parse_string() {
  const Token first = stream_.take();
  std::string text = first.text;
  while (stream_.is(TokenKind::kString)) text += stream_.take().text;
  return tree_.make<Constant>(first.offset, make_text(std::move(text)));
}

const Expression* ExpressionParser::parse_number() {
  const Token token = stream_.take();
  std::optional<Value> value;
  if (token.kind == TokenKind::kFloat) {
    if (const auto real = parse_float(token.text)) value = Value::real(*real);
  } else if (const auto integer = parse_int(token.text, 0)) {
    value = Value::integer(*integer);
  }
  if (!value) stream_.fail_at(token.offset, "must be a number that fits in 64 bits");
  return tree_.make<Constant>(token.offset, std::move(*value));
}

bool ExpressionParser::is_at_tuple_end() const {
  return stream_.is(TokenKind::kVariableEnd) || stream_.is(TokenKind::kBlockEnd) ||
         stream_.is_operator(")") || stream_.is_name("recursive");
}

const Expression* ExpressionParser::parse_tuple(bool conditionals) {
  const size_t at = stream_.offset();
  const auto parse_one = [&] { return conditionals ? parse() : parse_disjunction(); };
  const Expression* first = parse_one();
  if (!stream_.is_operator(",")) return first;
  auto* node = tree_.make<ListLiteral>(at);
  node->is_tuple = true;
  node->items.push_back(first);
  while (stream_.skip_operator(",") && !is_at_tuple_end()) node->items.push_back(parse_one());
  return node;
}

const Expression* ExpressionParser::parse_parenthesized() {
  const size_t at = stream_.take().offset;
  const Expression* value = nullptr;
  if (stream_.is_operator(")")) {
    auto* node = tree_.make<ListLiteral>(at);
    node->is_tuple = true;
    value = node;
  } else {
    value = parse_tuple();
  }
  stream_.expect_operator(")");
  return value;
}

const Expression* ExpressionParser::parse_list() {
  auto* node = tree_.make<ListLiteral>(stream_.take().offset);
  while (!stream_.is_operator("]")) {
    node->items.push_back(parse());
    if (!stream_.skip_operator(",")) break;
  }
  stream_.expect_operator("]");
  return node;
}

const Expression* ExpressionParser::parse_dict() {
  auto* node = tree_.make<DictLiteral>(stream_.take().offset);
  while (!stream_.is_operator("}")) {
    const Expression* key = parse();
    stream_.expect_operator(":");
    node->entries.emplace_back(key, parse());
    if (!stream_.skip_operator(",")) break;
  }
  stream_.expect_operator("}");
  return node;
}

}  // namespace qlora::data::jinja
