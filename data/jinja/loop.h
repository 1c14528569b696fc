// The variable `loop` inside {% for %}.
#pragma once

#include "data/jinja/object.h"
#include "data/jinja/prefixes.h"
#include "data/jinja/runtime.h"
#include "data/jinja/statements.h"

namespace qlora::data::jinja {

class Loop : public Object {
 public:
  Loop(const For& statement, Scope& scope, Values items, int depth)
      : statement_(statement), scope_(scope), items_(std::move(items)), depth_(depth) {}
  // Over a list whose prefixes are wanted; not empty.
  Loop(const For& statement, Scope& scope, const PrefixList& list, int depth)
      : Loop(statement, scope, list.whole(), depth) {
    list_ = &list;
  }
  std::string_view type_name() const override { return "LoopContext"; }
  std::optional<int64_t> length(Runtime&) const override {
    return static_cast<int64_t>(asked_size());
  }
  // loop(items) of a recursive loop: what its body writes for them.
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;

  bool is_running() const { return index_ < size(); }
  void advance(Runtime& runtime) {
    runtime.before_step([this, old = index_] { index_ = old; });
    ++index_;
  }
  // Of the current item, counted from 1 in the list whose prefixes are wanted.
  size_t length_up_to_here() const { return list_->offset() + index_ + 1; }
  const Value& current() const { return items_[index_]; }
  // loop.changed(values): have they changed since the last call?
  bool changed(Runtime& runtime, const Values& values);
  Value cycle(const Values& values) const;

 private:
  size_t size() const { return list_ ? list_->visible() : items_.size(); }
  // The size and whether another item follows, where a template asks for it.
  size_t asked_size() const;
  bool asked_has_next() const;

  const For& statement_;
  Scope& scope_;
  const Values items_;
  const int depth_;
  const PrefixList* list_ = nullptr;
  size_t index_ = 0;
  std::optional<Values> last_;
};

}  // namespace qlora::data::jinja
