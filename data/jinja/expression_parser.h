// Parses expressions: jinja2's grammar and precedences.
//
//   conditional > or > and > not > comparison > + - > ~ > * / // % > ** > unary > postfix, | and is
#pragma once

#include "data/jinja/expressions.h"
#include "data/jinja/token_stream.h"

namespace qlora::data::jinja {

class ExpressionParser {
 public:
  ExpressionParser(TokenStream& stream, Tree& tree) : stream_(stream), tree_(tree) {}

  const Expression* parse();              // with "a if b else c"
  const Expression* parse_disjunction();  // without
  // a, b, c without parentheses: a tuple, or the only one alone. `conditionals`: parse() or not.
  const Expression* parse_tuple(bool conditionals = true);
  // | filter | filter ..., on `input`; and one without its bar.
  const Expression* parse_filters(const Expression* input);
  const Expression* parse_filter(const Expression* input);
  CallArguments parse_arguments();  // from "(" to ")"
  const Expression* parse_unary(bool with_filters = true);

  // Filters and tests that do not exist are an error only where they are used for certain: under a
  // condition (which may ask for them), they fail when evaluated. forgive(n) drops all but the
  // first n of those found so far.
  struct Unknown {
    size_t offset;
    std::string message;
  };
  const std::vector<Unknown>& unknown() const { return unknown_; }
  void forgive(size_t num_kept) {
    unknown_.erase(unknown_.begin() + static_cast<std::ptrdiff_t>(num_kept), unknown_.end());
  }

  // Which of a macro's own variables the expressions so far have used.
  struct MacroVariables {
    bool varargs = false, kwargs = false, caller = false;
  };
  MacroVariables& macro_variables() { return macro_variables_; }

 private:
  const Expression* parse_conjunction();
  const Expression* parse_negation();
  const Expression* parse_comparison();
  const Expression* parse_sum();
  const Expression* parse_concatenation();
  const Expression* parse_product();
  const Expression* parse_power();
  const Expression* parse_primary();
  const Expression* parse_name();
  const Expression* parse_string();
  const Expression* parse_number();
  const Expression* parse_parenthesized();
  const Expression* parse_list();
  const Expression* parse_dict();
  const Expression* parse_postfix(const Expression* value);
  const Expression* parse_subscript(const Expression* object);
  const Expression* parse_subscript_part(const Expression* object, size_t at);
  const Expression* parse_after_dot(const Expression* object);
  const Expression* parse_postfix_filters(const Expression* value);
  const Expression* parse_call(const Expression* callee);
  const Expression* parse_test(const Expression* input);
  void parse_argument(CallArguments& arguments);
  bool is_at_tuple_end() const;
  std::string parse_dotted_name();

  TokenStream& stream_;
  Tree& tree_;
  MacroVariables macro_variables_;
  std::vector<Unknown> unknown_;
};

}  // namespace qlora::data::jinja
