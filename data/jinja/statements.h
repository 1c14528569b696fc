// The statements of the template language.
#pragma once

#include "data/jinja/nodes.h"

namespace qlora::data::jinja {

class Loop;
class PrefixList;

struct TextOutput final : Statement {
  TextOutput(size_t at, std::string its_text) : Statement(at), text(std::move(its_text)) {}
  Flow run(Runtime& runtime, Scope& scope) const override;
  const std::string text;
};

// {{ value }}
struct Output final : Statement {
  Output(size_t at, const Expression* what) : Statement(at), value(what) {}
  Flow run(Runtime& runtime, Scope& scope) const override;
  const Expression* value;
};

struct If final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  std::vector<std::pair<const Expression*, Body>> branches;
  Body otherwise;
};

struct For final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  // One run over the items, `depth` calls of a recursive loop deep.
  Flow iterate(Runtime& runtime, Scope& scope, const Value& over, int depth) const;
  // The same over a list whose prefixes are wanted.
  Flow iterate_prefixes(Runtime& runtime, Scope& scope, const PrefixList& list, int depth) const;
  // Those that meet the condition.
  Values chosen_items(Runtime& runtime, Scope& scope, const Value& over) const;
  // Runs the body for the current item.
  Flow step(Runtime& runtime, Scope& scope, Loop& loop) const;
  Target target;
  const Expression* iterable = nullptr;
  const Expression* condition = nullptr;  // nullptr: every item
  bool is_recursive = false;
  Body body;
  Body otherwise;
};

struct Jump final : Statement {
  Jump(size_t at, Flow where) : Statement(at), flow(where) {}
  Flow run(Runtime&, Scope&) const override { return flow; }
  const Flow flow;
};

struct Set final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  Target target;
  const Expression* value = nullptr;
};

// {% set x | filter %} body {% endset %}
struct SetBlock final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  Target target;
  const Expression* filter = nullptr;  // nullptr: the text as it is
  Body body;
};

// {% filter upper %} body {% endfilter %}
struct FilterBlock final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  const Expression* filter = nullptr;
  Body body;
};

// {% with a = 1 %} body {% endwith %}
struct With final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  std::vector<std::pair<Target, const Expression*>> variables;
  Body body;
};

// {% generation %} body {% endgeneration %}: what it writes is an assistant's answer, to be
// trained.
struct Generation final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  Body body;
};

// What {% macro %} and {% call %} define.
struct MacroDefinition {
  std::string name;
  std::vector<std::pair<std::string, const Expression*>> parameters;  // nullptr: no default
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
  Body body;
};

struct Macro final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  MacroDefinition definition;
};

// {% call(parameters) macro(...) %} body {% endcall %}
struct CallBlock final : Statement {
  using Statement::Statement;
  Flow run(Runtime& runtime, Scope& scope) const override;
  MacroDefinition definition;
  const Expression* callee = nullptr;
  CallArguments arguments;
};

}  // namespace qlora::data::jinja
