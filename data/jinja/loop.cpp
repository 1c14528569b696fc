#include "data/jinja/loop.h"

#include "data/jinja/callables.h"
#include "data/jinja/operators.h"

namespace qlora::data::jinja {
namespace {

Value call_cycle(Runtime&, const Value& loop, const Arguments& arguments) {
  return loop.as<Loop>()->cycle(arguments.positional);
}

Value call_changed(Runtime& runtime, const Value& loop, const Arguments& arguments) {
  return Value::boolean(loop.as<Loop>()->changed(runtime, arguments.positional));
}

}  // namespace

Value Loop::call(Runtime& runtime, const Arguments& arguments) {
  if (!statement_.is_recursive) fail_render("only a loop marked 'recursive' can be called");
  const Parameters given("loop", {"iterable"}, arguments);
  const DepthGuard guard(runtime);
  Capture captured(runtime);
  statement_.iterate(runtime, scope_, given.required(0), depth_ + 1);
  return runtime.text(captured.take());
}

bool Loop::changed(Runtime& runtime, const Values& values) {
  bool same = last_ && last_->size() == values.size();
  for (size_t i = 0; same && i < values.size(); ++i) {
    same = equal(runtime, (*last_)[i], values[i]);
  }
  runtime.before_change([this, old = last_] { last_ = old; });
  for (const Value& value : values)
    if (value.object()) runtime.note_kept_object();
  last_ = values;
  return !same;
}

size_t Loop::asked_size() const {
  if (list_) list_->prefixes().needs_all();
  return size();
}

bool Loop::asked_has_next() const {
  const bool has_next = index_ + 1 < size();
  if (list_ && has_next) list_->prefixes().needs(length_up_to_here() + 1);
  if (list_ && !has_next) list_->prefixes().needs_all();
  return has_next;
}

Value Loop::cycle(const Values& values) const {
  if (values.empty()) fail_render("loop.cycle needs values to cycle through");
  return values[index_ % values.size()];
}

std::optional<Value> Loop::attribute(Runtime& runtime, std::string_view name) {
  const auto integer = [](size_t value) { return Value::integer(static_cast<int64_t>(value)); };
  if (name == "index") return integer(index_ + 1);
  if (name == "index0") return integer(index_);
  if (name == "revindex") return integer(asked_size() - index_);
  if (name == "revindex0") return integer(asked_size() - index_ - 1);
  if (name == "first") return Value::boolean(index_ == 0);
  if (name == "last") return Value::boolean(!asked_has_next());
  if (name == "length") return integer(asked_size());
  if (name == "depth") return Value::integer(depth_);
  if (name == "depth0") return Value::integer(depth_ - 1);
  if (name == "previtem") {
    return index_ > 0 ? items_[index_ - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return asked_has_next() ? items_[index_ + 1] : Value::undefined("there is no next item");
  }
  if (name == "cycle") return runtime.make<Method>(*this, call_cycle);
  if (name == "changed") return runtime.make<Method>(*this, call_changed);
  return std::nullopt;
}

}  // namespace qlora::data::jinja
