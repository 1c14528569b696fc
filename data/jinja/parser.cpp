#include "data/jinja/parser.h"

#include <initializer_list>

#include "data/jinja/expression_parser.h"
#include "data/jinja/statements.h"
#include "data/jinja/token_stream.h"

namespace qlora::data::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(const Source& source) : stream_(source), expressions_(stream_, tree_) {}

  Tree run() {
    tree_.body = parse_body(0, {});
    if (!expressions_.unknown().empty()) {
      const auto& unknown = expressions_.unknown().front();
      stream_.fail_at(unknown.offset, unknown.message);
    }
    return std::move(tree_);
  }

 private:
  void end_tag() { stream_.expect(TokenKind::kBlockEnd, "%}"); }

  // Statements up to a tag that begins with one of `ends`; the stream then stands at that name.
  // `at`: where the block began.
  Body parse_body(size_t at, Names ends) {
    const TokenStream::Nesting nesting(stream_);
    Body body;
    while (!stream_.is(TokenKind::kEnd)) {
      const Token token = stream_.take();
      if (token.kind == TokenKind::kText) {
        body.push_back(tree_.make<TextOutput>(token.offset, token.text));
      } else if (token.kind == TokenKind::kVariableBegin) {
        body.push_back(tree_.make<Output>(token.offset, expressions_.parse_tuple()));
        stream_.expect(TokenKind::kVariableEnd, "}}");
      } else {
        if (stream_.is_one_of(ends)) return body;
        body.push_back(parse_statement(ends));
      }
    }
    if (ends.size() > 0) {
      stream_.fail_at(at, fmt::format("this block has no {{% {} %}}", *ends.begin()));
    }
    return body;
  }

  // From the end of the opening tag to the end of the closing one.
  Body parse_block(size_t at, std::string_view end) {
    end_tag();
    Body body = parse_body(at, {end});
    stream_.take();
    end_tag();
    return body;
  }

  // As parse_block, for bodies that run apart from the loop around them.
  Body parse_closed_block(size_t at, std::string_view end) {
    const int loops = std::exchange(num_loops_, 0);
    Body body = parse_block(at, end);
    num_loops_ = loops;
    return body;
  }

  const Statement* parse_statement(Names ends) {
    const size_t at = stream_.offset();
    const std::string tag = stream_.expect_any_name("a tag's name");
    if (tag == "if") return parse_if(at);
    if (tag == "for") return parse_for(at);
    if (tag == "set") return parse_set(at);
    if (tag == "macro") return parse_macro(at);
    if (tag == "call") return parse_call_block(at);
    if (tag == "filter") return parse_filter_block(at);
    if (tag == "with") return parse_with(at);
    if (tag == "generation") return parse_generation(at);
    if (tag == "print") return parse_print(at);
    if (tag == "break" || tag == "continue") return parse_jump(at, tag);
    for (const std::string_view unsupported : {"extends", "include", "import", "from", "block"}) {
      if (tag == unsupported) {
        stream_.fail_at(at, fmt::format("'{}' is not supported: a chat template must be complete "
                                        "in itself",
                                        tag));
      }
    }
    stream_.fail_at(
        at, ends.size() > 0
                ? fmt::format("there is no tag '{}' (here must end the block with '{}')", tag,
                              *ends.begin())
                : fmt::format("there is no tag '{}' that could stand here", tag));
  }

  const Statement* parse_if(size_t at) {
    const size_t num_unknown = expressions_.unknown().size();
    auto* node = tree_.make<If>(at);
    while (true) {
      const Expression* condition = expressions_.parse_tuple(false);
      end_tag();
      node->branches.emplace_back(condition, parse_body(at, {"endif", "elif", "else"}));
      const std::string tag = stream_.take().text;
      if (tag == "elif") continue;
      end_tag();
      if (tag == "else") {
        node->otherwise = parse_body(at, {"endif"});
        stream_.take();
        end_tag();
      }
      expressions_.forgive(num_unknown);
      return node;
    }
  }

  const Statement* parse_for(size_t at) {
    auto* node = tree_.make<For>(at);
    node->target = parse_target();
    stream_.expect_name("in");
    node->iterable = expressions_.parse_tuple(false);
    if (stream_.skip_name("if")) node->condition = expressions_.parse();
    node->is_recursive = stream_.skip_name("recursive");
    end_tag();
    ++num_loops_;
    node->body = parse_body(at, {"endfor", "else"});
    --num_loops_;
    const bool has_else = stream_.take().text == "else";
    end_tag();
    if (has_else) {
      node->otherwise = parse_body(at, {"endfor"});
      stream_.take();
      end_tag();
    }
    return node;
  }

  const Statement* parse_set(size_t at) {
    Target target = parse_target();
    if (stream_.skip_operator("=")) {
      auto* node = tree_.make<Set>(at);
      node->target = std::move(target);
      node->value = expressions_.parse_tuple();
      end_tag();
      return node;
    }
    auto* node = tree_.make<SetBlock>(at);
    node->target = std::move(target);
    if (stream_.is_operator("|")) {
      node->filter = expressions_.parse_filters(tree_.make<FilterInput>(at));
    }
    // A block that assigns is no function: break and continue pass through it.
    node->body = parse_block(at, "endset");
    return node;
  }

  const Statement* parse_macro(size_t at) {
    auto* node = tree_.make<Macro>(at);
    node->definition.name = stream_.expect_any_name("the macro's name");
    parse_parameters(node->definition);
    parse_macro_body(at, node->definition, "endmacro");
    return node;
  }

  const Statement* parse_call_block(size_t at) {
    auto* node = tree_.make<CallBlock>(at);
    node->definition.name = "caller";
    if (stream_.is_operator("(")) parse_parameters(node->definition);
    const size_t call_at = stream_.offset();
    const auto* call = dynamic_cast<const Call*>(expressions_.parse());
    if (!call) stream_.fail_at(call_at, "a call block must call something");
    node->callee = call->callee;
    node->arguments = call->arguments;
    parse_macro_body(at, node->definition, "endcall");
    return node;
  }

  void parse_macro_body(size_t at, MacroDefinition& definition, std::string_view end) {
    auto& variables = expressions_.macro_variables();
    const auto outer = std::exchange(variables, {});
    definition.body = parse_closed_block(at, end);
    definition.uses_varargs = variables.varargs;
    definition.uses_kwargs = variables.kwargs;
    definition.uses_caller = variables.caller;
    variables = outer;
  }

  void parse_parameters(MacroDefinition& definition) {
    stream_.expect_operator("(");
    while (!stream_.is_operator(")")) {
      const size_t at = stream_.offset();
      std::string name = stream_.expect_any_name("a parameter's name");
      const Expression* otherwise = nullptr;
      if (stream_.skip_operator("=")) {
        otherwise = expressions_.parse();
      } else if (!definition.parameters.empty() && definition.parameters.back().second) {
        stream_.fail_at(at, "a parameter without a default must not follow one that has one");
      }
      definition.parameters.emplace_back(std::move(name), otherwise);
      if (!stream_.skip_operator(",")) break;
    }
    stream_.expect_operator(")");
  }

  const Statement* parse_filter_block(size_t at) {
    auto* node = tree_.make<FilterBlock>(at);
    node->filter =
        expressions_.parse_filters(expressions_.parse_filter(tree_.make<FilterInput>(at)));
    node->body = parse_block(at, "endfilter");
    return node;
  }

  const Statement* parse_with(size_t at) {
    auto* node = tree_.make<With>(at);
    while (!stream_.is(TokenKind::kBlockEnd)) {
      Target target = parse_target_part();
      stream_.expect_operator("=");
      node->variables.emplace_back(std::move(target), expressions_.parse());
      if (!stream_.skip_operator(",")) break;
    }
    node->body = parse_block(at, "endwith");
    return node;
  }

  const Statement* parse_generation(size_t at) {
    auto* node = tree_.make<Generation>(at);
    node->body = parse_closed_block(at, "endgeneration");
    tree_.marks_generation = true;
    return node;
  }

  const Statement* parse_print(size_t at) {
    auto* node = tree_.make<Output>(at, expressions_.parse_tuple());
    end_tag();
    return node;
  }

  const Statement* parse_jump(size_t at, const std::string& tag) {
    if (num_loops_ == 0) stream_.fail_at(at, fmt::format("'{}' must stand in a loop", tag));
    end_tag();
    return tree_.make<Jump>(at, tag == "break" ? Flow::kBreak : Flow::kContinue);
  }

  // a, b, (c, d): what stands left of "=" or "in".
  Target parse_target() {
    const size_t at = stream_.offset();
    Target first = parse_target_part();
    if (!stream_.is_operator(",")) return first;
    Target tuple;
    tuple.offset = at;
    tuple.parts.push_back(std::move(first));
    while (stream_.skip_operator(",")) {
      if (!stream_.is(TokenKind::kName) && !stream_.is_operator("(")) break;
      if (stream_.is_name("in")) break;
      tuple.parts.push_back(parse_target_part());
    }
    return tuple;
  }

  Target parse_target_part() {
    const TokenStream::Nesting nesting(stream_);
    if (stream_.skip_operator("(")) {
      Target target = parse_target();
      stream_.expect_operator(")");
      return target;
    }
    Target target;
    target.offset = stream_.offset();
    if (stream_.is_one_of({"true", "True", "false", "False", "none", "None"})) {
      stream_.fail_at(target.offset, "a constant cannot be assigned to");
    }
    target.name = stream_.expect_any_name("a variable's name");
    if (stream_.skip_operator(".")) target.attribute = stream_.expect_any_name("an attribute");
    return target;
  }

  TokenStream stream_;
  Tree tree_;
  ExpressionParser expressions_;
  int num_loops_ = 0;  // around the statement, in this function
};

}  // namespace

Tree parse(const Source& source) { return Parser(source).run(); }

}  // namespace qlora::data::jinja
