// What stands behind a value: attributes, items, slices, calls, filters, tests.
#include <string>

#include "data/jinja/expression_parser.h"
#include "data/jinja/numbers.h"

namespace qlora::data::jinja {

const Expression* ExpressionParser::parse_postfix(const Expression* value) {
  while (true) {
    if (stream_.is_operator(".")) {
      value = parse_after_dot(value);
    } else if (stream_.is_operator("[")) {
      value = parse_subscript(value);
    } else if (stream_.is_operator("(")) {
      value = parse_call(value);
    } else {
      return value;
    }
  }
}

const Expression* ExpressionParser::parse_postfix_filters(const Expression* value) {
  while (true) {
    if (stream_.is_operator("|")) {
      value = parse_filters(value);
    } else if (stream_.is_name("is")) {
      value = parse_test(value);
    } else if (stream_.is_operator("(")) {
      value = parse_call(value);
    } else {
      return value;
    }
  }
}

const Expression* ExpressionParser::parse_after_dot(const Expression* object) {
  stream_.take();
  const Token name = stream_.take();
  if (name.kind == TokenKind::kName) return tree_.make<Attribute>(name.offset, object, name.text);
  const auto index = parse_int(name.text, 10);
  if (name.kind != TokenKind::kInteger || !index) {
    stream_.fail_at(name.offset, "a dot must be followed by a name");
  }
  return tree_.make<Item>(name.offset, object,
                          tree_.make<Constant>(name.offset, Value::integer(*index)));
}

const Expression* ExpressionParser::parse_subscript(const Expression* object) {
  const size_t at = stream_.take().offset;
  const Expression* result = parse_subscript_part(object, at);
  if (stream_.is_operator(",")) {
    // x[1, 2]: a tuple as the key.
    const auto* first = dynamic_cast<const Item*>(result);
    if (!first) stream_.fail_on_token("']'");
    auto* key = tree_.make<ListLiteral>(at);
    key->is_tuple = true;
    key->items.push_back(first->key);
    while (stream_.skip_operator(",") && !stream_.is_operator("]")) key->items.push_back(parse());
    result = tree_.make<Item>(at, object, key);
  }
  stream_.expect_operator("]");
  return result;
}

// A key, or begin:end:step with any of them left out.
const Expression* ExpressionParser::parse_subscript_part(const Expression* object, size_t at) {
  const Expression* begin = nullptr;
  if (!stream_.is_operator(":")) {
    begin = parse();
    if (!stream_.is_operator(":")) return tree_.make<Item>(at, object, begin);
  }
  stream_.take();
  auto* node = tree_.make<Slice>(at);
  node->object = object;
  node->begin = begin;
  if (!stream_.is_operator(":") && !stream_.is_operator("]")) node->end = parse();
  if (stream_.skip_operator(":") && !stream_.is_operator("]")) node->step = parse();
  return node;
}

const Expression* ExpressionParser::parse_call(const Expression* callee) {
  auto* node = tree_.make<Call>(stream_.offset(), callee);
  node->arguments = parse_arguments();
  return node;
}

CallArguments ExpressionParser::parse_arguments() {
  CallArguments arguments;
  stream_.expect_operator("(");
  while (!stream_.is_operator(")")) {
    parse_argument(arguments);
    if (!stream_.skip_operator(",")) break;
  }
  stream_.expect_operator(")");
  return arguments;
}

void ExpressionParser::parse_argument(CallArguments& arguments) {
  const size_t at = stream_.offset();
  if (stream_.skip_operator("**")) {
    if (arguments.more_keyword) stream_.fail_at(at, "a call must have one **argument at most");
    arguments.more_keyword = parse();
  } else if (arguments.more_keyword) {
    stream_.fail_at(at, "a **argument must be the last");
  } else if (stream_.skip_operator("*")) {
    if (arguments.more_positional) stream_.fail_at(at, "a call must have one *argument at most");
    arguments.more_positional = parse();
  } else if (stream_.is(TokenKind::kName) && stream_.ahead().kind == TokenKind::kOperator &&
             stream_.ahead().text == "=") {
    std::string name = stream_.take().text;
    stream_.take();
    for (const auto& [given, value] : arguments.keyword) {
      if (given == name) stream_.fail_at(at, fmt::format("argument '{}' is given twice", name));
    }
    arguments.keyword.emplace_back(std::move(name), parse());
  } else if (!arguments.keyword.empty() || arguments.more_positional) {
    stream_.fail_at(at, "arguments without a name must come first");
  } else {
    arguments.positional.push_back(parse());
  }
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = stream_.expect_any_name("a name");
  while (stream_.skip_operator(".")) name += "." + stream_.expect_any_name("a name");
  return name;
}

const Expression* ExpressionParser::parse_filters(const Expression* input) {
  while (stream_.skip_operator("|")) input = parse_filter(input);
  return input;
}

const Expression* ExpressionParser::parse_filter(const Expression* input) {
  auto* node = tree_.make<Filter>(stream_.offset());
  const std::string name = parse_dotted_name();
  node->input = input;
  node->filter = find_filter(name);
  node->name = name;
  if (!node->filter)
    unknown_.push_back({node->offset, fmt::format("there is no filter '{}'", name)});
  if (stream_.is_operator("(")) node->arguments = parse_arguments();
  return node;
}

const Expression* ExpressionParser::parse_test(const Expression* input) {
  const TokenStream::Nesting nesting(stream_);
  stream_.take();
  const bool negated = stream_.skip_name("not");
  auto* node = tree_.make<Test>(stream_.offset());
  node->input = input;
  node->is_negated = negated;
  const std::string name = parse_dotted_name();
  node->test = find_test(name);
  node->name = name;
  if (!node->test) unknown_.push_back({node->offset, fmt::format("there is no test '{}'", name)});
  const TokenKind kind = stream_.current().kind;
  if (stream_.is_operator("(")) {
    node->arguments = parse_arguments();
  } else if (kind == TokenKind::kString || kind == TokenKind::kInteger ||
             kind == TokenKind::kFloat || stream_.is_operator("[") || stream_.is_operator("{") ||
             (kind == TokenKind::kName && !stream_.is_one_of({"else", "or", "and"}))) {
    if (stream_.is_name("is")) stream_.fail_at(stream_.offset(), "tests cannot be chained by 'is'");
    node->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  return node;
}

}  // namespace qlora::data::jinja
