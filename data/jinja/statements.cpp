#include "data/jinja/statements.h"

#include <algorithm>

#include "data/jinja/expressions.h"
#include "data/jinja/loop.h"
#include "data/jinja/macro.h"

namespace qlora::data::jinja {

Flow TextOutput::run(Runtime& runtime, Scope&) const {
  runtime.write(text);
  return Flow::kNext;
}

Flow Output::run(Runtime& runtime, Scope& scope) const {
  const Value held = value->evaluate(runtime, scope);
  if (held.is_text()) {
    runtime.write(held.bytes());
  } else {
    runtime.write(to_text(runtime, held));
  }
  return Flow::kNext;
}

Flow If::run(Runtime& runtime, Scope& scope) const {
  for (const auto& [condition, body] : branches) {
    if (is_true(runtime, condition->evaluate(runtime, scope))) {
      return execute_all(body, runtime, scope);
    }
  }
  return execute_all(otherwise, runtime, scope);
}

Flow For::run(Runtime& runtime, Scope& scope) const {
  return iterate(runtime, scope, iterable->evaluate(runtime, scope), 1);
}

Flow For::iterate(Runtime& runtime, Scope& scope, const Value& over, int depth) const {
  const auto* prefixes = over.as<PrefixList>();
  if (prefixes && !condition) return iterate_prefixes(runtime, scope, *prefixes, depth);
  Values items = condition ? chosen_items(runtime, scope, over) : collect(runtime, over);
  if (items.empty()) return execute_all(otherwise, runtime, runtime.new_scope(&scope));
  Loop& loop = runtime.make<Loop>(*this, scope, std::move(items), depth);
  for (; loop.is_running(); loop.advance(runtime)) {
    if (step(runtime, scope, loop) == Flow::kBreak) return Flow::kNext;
  }
  return Flow::kNext;
}

Values For::chosen_items(Runtime& runtime, Scope& scope, const Value& over) const {
  return items_where(runtime, over, [&](const Value& item) {
    Scope& inner = runtime.new_scope(&scope);
    target.assign(runtime, inner, item);
    return is_true(runtime, condition->evaluate(runtime, inner));
  });
}

Flow For::iterate_prefixes(Runtime& runtime, Scope& scope, const PrefixList& list,
                           int depth) const {
  if (!list.is_true(runtime)) return execute_all(otherwise, runtime, runtime.new_scope(&scope));
  Prefixes& prefixes = list.prefixes();
  prefixes.enter_loop(runtime);
  runtime.charge(list.visible());
  Loop& loop = runtime.make<Loop>(*this, scope, list, depth);
  const size_t kept = runtime.kept_objects();
  size_t lasting = prefixes.needed();  // for the state behind the loop
  const auto finish = [&] {
    for (; loop.is_running(); loop.advance(runtime)) {
      if (step(runtime, scope, loop) == Flow::kBreak) return;
    }
  };
  for (; loop.is_running(); loop.advance(runtime)) {
    const size_t here = loop.length_up_to_here();
    prefixes.reach(here, runtime, scope, finish);
    prefixes.needs(here);
    const size_t needed = prefixes.needed(), changes = runtime.changes(),
                 written = runtime.written();
    const Flow flow = step(runtime, scope, loop);
    if (prefixes.needed() > needed) lasting = prefixes.needed();
    if (runtime.changes() != changes || runtime.written() != written)
      lasting = std::max(lasting, here);
    if (flow == Flow::kBreak) break;
  }
  prefixes.set_needed(lasting);
  if (runtime.kept_objects() != kept)
    prefixes.needs_all();  // it may be the loop, which has gone on
  return Flow::kNext;
}

Flow For::step(Runtime& runtime, Scope& scope, Loop& loop) const {
  Scope& inner = runtime.new_scope(&scope);
  inner.set("loop", loop);
  target.assign(runtime, inner, loop.current());
  return execute_all(body, runtime, inner, Repeats::kYes);
}

Flow Set::run(Runtime& runtime, Scope& scope) const {
  target.assign(runtime, scope, value->evaluate(runtime, scope));
  return Flow::kNext;
}

namespace {

Value filtered(const Expression* filter, Value text, Runtime& runtime, Scope& scope) {
  if (!filter) return text;
  Scope& inner = runtime.new_scope(&scope);
  inner.set(FilterInput::kVariable, std::move(text));
  return filter->evaluate(runtime, inner);
}

}  // namespace

Flow SetBlock::run(Runtime& runtime, Scope& scope) const {
  Capture captured(runtime);
  const Flow flow = execute_all(body, runtime, runtime.new_scope(&scope));
  if (flow != Flow::kNext) return flow;
  target.assign(runtime, scope, filtered(filter, runtime.text(captured.take()), runtime, scope));
  return Flow::kNext;
}

Flow FilterBlock::run(Runtime& runtime, Scope& scope) const {
  Value text;
  {
    Capture captured(runtime);
    const Flow flow = execute_all(body, runtime, runtime.new_scope(&scope));
    if (flow != Flow::kNext) return flow;
    text = runtime.text(captured.take());
  }
  runtime.write(to_text(runtime, filtered(filter, text, runtime, scope)));
  return Flow::kNext;
}

Flow With::run(Runtime& runtime, Scope& scope) const {
  Scope& inner = runtime.new_scope(&scope);
  for (const auto& [target, value] : variables) {
    target.assign(runtime, inner, value->evaluate(runtime, scope));
  }
  return execute_all(body, runtime, inner);
}

Flow Generation::run(Runtime& runtime, Scope& scope) const {
  const size_t begin = runtime.written();
  const Flow flow = execute_all(body, runtime, runtime.new_scope(&scope));
  runtime.note_generated(begin);
  return flow;
}

Flow Macro::run(Runtime& runtime, Scope& scope) const {
  scope.set(definition.name, runtime.make<BoundMacro>(definition, scope));
  return Flow::kNext;
}

Flow CallBlock::run(Runtime& runtime, Scope& scope) const {
  const Value function = callee->evaluate(runtime, scope);
  Arguments given = arguments.evaluate(runtime, scope);
  given.keyword.emplace_back("caller", runtime.make<BoundMacro>(definition, scope));
  runtime.write(to_text(runtime, call(runtime, function, given)));
  return Flow::kNext;
}

}  // namespace qlora::data::jinja
