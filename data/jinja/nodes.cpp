#include "data/jinja/nodes.h"

#include "data/jinja/containers.h"

namespace qlora::data::jinja {
namespace {

// Runs `what`; a Failure without a place gets this node's.
template <typename F>
auto placed(const Node& node, const F& what) {
  try {
    return what();
  } catch (Failure& failure) {
    if (failure.offset == Failure::kNowhere) failure.offset = node.offset;
    throw;
  }
}

}  // namespace

Value Expression::evaluate(Runtime& runtime, Scope& scope) const {
  return placed(*this, [&] {
    const DepthGuard guard(runtime);
    return compute(runtime, scope);
  });
}

Flow Statement::execute(Runtime& runtime, Scope& scope) const {
  return placed(*this, [&] {
    const DepthGuard guard(runtime);
    return run(runtime, scope);
  });
}

Flow execute_all(const Body& body, Runtime& runtime, Scope& scope, Repeats repeats) {
  Runtime::Frame frame(runtime, body, scope, repeats == Repeats::kYes);
  while (frame.next < body.size()) {
    const Flow flow = body[frame.next++]->execute(runtime, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

bool Runtime::can_run_outer_rest() const {
  if (output_ != watched_output_) return false;
  for (const Frame* frame = innermost_; frame; frame = frame->outer) {
    if (frame->repeats) return false;
  }
  return true;
}

void Runtime::run_outer_rest() {
  for (const Frame* frame = innermost_; frame; frame = frame->outer) {
    for (size_t i = frame->next; i < frame->body.size(); ++i) {
      frame->body[i]->execute(*this, frame->scope);
    }
  }
}

std::string capture(const Body& body, Runtime& runtime, Scope& scope) {
  Capture captured(runtime);
  execute_all(body, runtime, scope);
  return captured.take();
}

Arguments CallArguments::evaluate(Runtime& runtime, Scope& scope) const {
  Arguments arguments;
  for (const Expression* value : positional) {
    arguments.positional.push_back(value->evaluate(runtime, scope));
  }
  if (more_positional) {
    for (Value& value : collect(runtime, more_positional->evaluate(runtime, scope))) {
      arguments.positional.push_back(std::move(value));
    }
  }
  for (const auto& [name, value] : keyword) {
    arguments.keyword.emplace_back(name, value->evaluate(runtime, scope));
  }
  if (!more_keyword) return arguments;
  const Value more = more_keyword->evaluate(runtime, scope);
  const Dict* dict = more.as<Dict>();
  if (!dict) fail_render("an argument after ** must be a dict, not {}", more.type_name());
  for (const auto& [key, value] : dict->entries()) {
    if (!key.is_text()) fail_render("names of arguments must be strings");
    arguments.keyword.emplace_back(key.bytes(), value);
  }
  return arguments;
}

void Target::assign(Runtime& runtime, Scope& scope, const Value& value) const {
  if (!parts.empty()) {
    const Values values = collect(runtime, value);
    if (values.size() != parts.size()) {
      fail_render("cannot unpack {} values into {} names", values.size(), parts.size());
    }
    for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(runtime, scope, values[i]);
    return;
  }
  if (attribute.empty()) return scope.set(name, value);
  size_t scanned = 0;
  const Value* held = scope.find(name, scanned);
  runtime.charge(scanned / 16);
  Namespace* space = held ? held->as<Namespace>() : nullptr;
  if (!space) fail_render("'{}' must be a namespace to set its attribute '{}'", name, attribute);
  space->set(runtime, attribute, value);
}

}  // namespace qlora::data::jinja
