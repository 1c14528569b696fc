#include "data/jinja/expressions.h"

#include "data/jinja/containers.h"
#include "data/jinja/filters.h"
#include "data/jinja/operators.h"
#include "data/jinja/prefixes.h"

namespace qlora::data::jinja {

Value Name::compute(Runtime& runtime, Scope& scope) const {
  size_t scanned = 0;
  const Value* found = scope.find(name, scanned);
  runtime.charge(scanned / 16);
  return found ? *found : Value::undefined("'" + name + "' is undefined");
}

Value FilterInput::compute(Runtime&, Scope& scope) const {
  size_t scanned = 0;
  return *scope.find(kVariable, scanned);
}

Value ListLiteral::compute(Runtime& runtime, Scope& scope) const {
  Values values;
  values.reserve(items.size());
  for (const Expression* item : items) values.push_back(item->evaluate(runtime, scope));
  return is_tuple ? runtime.tuple(std::move(values)) : runtime.list(std::move(values));
}

Value DictLiteral::compute(Runtime& runtime, Scope& scope) const {
  Dict& dict = runtime.make<Dict>();
  for (const auto& [key, value] : entries) {
    const Value held_key = key->evaluate(runtime, scope);
    dict.set(runtime, held_key, value->evaluate(runtime, scope));
  }
  return dict;
}

Value Attribute::compute(Runtime& runtime, Scope& scope) const {
  return attribute_of(runtime, object->evaluate(runtime, scope), name);
}

Value Item::compute(Runtime& runtime, Scope& scope) const {
  const Value container = object->evaluate(runtime, scope);
  return item_of(runtime, container, key->evaluate(runtime, scope));
}

Value Slice::compute(Runtime& runtime, Scope& scope) const {
  const auto bound = [&](const Expression* part) {
    return part ? part->evaluate(runtime, scope) : Value();
  };
  const Value container = object->evaluate(runtime, scope);
  const Value first = bound(begin), last = bound(end);
  return slice(runtime, container, first, last, bound(step));
}

Value Call::compute(Runtime& runtime, Scope& scope) const {
  const Value function = callee->evaluate(runtime, scope);
  return call(runtime, function, arguments.evaluate(runtime, scope));
}

Value Filter::compute(Runtime& runtime, Scope& scope) const {
  if (!filter) fail_render("there is no filter '{}'", name);
  const Value value = input->evaluate(runtime, scope);
  return filter(runtime, value, arguments.evaluate(runtime, scope));
}

Value Test::compute(Runtime& runtime, Scope& scope) const {
  if (!test) fail_render("there is no test '{}'", name);
  const Value value = input->evaluate(runtime, scope);
  const bool holds = test(runtime, value, arguments.evaluate(runtime, scope));
  return Value::boolean(holds != is_negated);
}

Value Unary::compute(Runtime& runtime, Scope& scope) const {
  return apply(runtime, operand->evaluate(runtime, scope));
}

Value Binary::compute(Runtime& runtime, Scope& scope) const {
  const Value a = left->evaluate(runtime, scope);
  return apply(runtime, a, right->evaluate(runtime, scope));
}

Value Concatenation::compute(Runtime& runtime, Scope& scope) const {
  std::string result;
  for (const Expression* part : parts) {
    const std::string text = to_text(runtime, part->evaluate(runtime, scope));
    runtime.expect_text(result.size() + text.size());
    result += text;
  }
  return runtime.text(std::move(result));
}

std::optional<Value> Comparison::length_to_compare(Runtime& runtime, Scope& scope) const {
  const auto* of = dynamic_cast<const Filter*>(first);
  if (!of || of->filter != filters::length || rest.size() != 1) return std::nullopt;
  const auto* number = dynamic_cast<const Constant*>(rest.front().second);
  if (!number || !number->value.is_integer() || number->value.integer() < 0) return std::nullopt;
  const auto* variable = dynamic_cast<const Name*>(of->input);  // looking at it has no effect
  if (!variable) return std::nullopt;
  const Value value = variable->evaluate(runtime, scope);
  const auto* list = value.as<PrefixList>();
  if (!list) return std::nullopt;
  const auto beyond = static_cast<size_t>(number->value.integer()) + 1;
  if (list->visible() < beyond) return std::nullopt;
  list->needs_first(beyond);
  return Value::integer(static_cast<int64_t>(list->visible()));
}

Value Comparison::compute(Runtime& runtime, Scope& scope) const {
  const auto length = length_to_compare(runtime, scope);
  Value left = length ? *length : first->evaluate(runtime, scope);
  for (const auto& [relation, operand] : rest) {
    Value right = operand->evaluate(runtime, scope);
    if (!relation(runtime, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Logic::compute(Runtime& runtime, Scope& scope) const {
  Value value;
  for (const Expression* operand : operands) {
    value = operand->evaluate(runtime, scope);
    if (is_true(runtime, value) != is_and) return value;
  }
  return value;
}

Value Conditional::compute(Runtime& runtime, Scope& scope) const {
  if (is_true(runtime, condition->evaluate(runtime, scope))) return then->evaluate(runtime, scope);
  if (otherwise) return otherwise->evaluate(runtime, scope);
  return Value::undefined("the condition was false and there is no else");
}

}  // namespace qlora::data::jinja
