// The variable `loop` inside {% for %}.
#pragma once

#include "data/jinja/object.h"
#include "data/jinja/runtime.h"
#include "data/jinja/statements.h"

namespace qlora::data::jinja {

class Loop : public Object {
 public:
  Loop(const For& statement, Scope& scope, Values items, int depth)
      : statement_(statement), scope_(scope), items_(std::move(items)), depth_(depth) {}
  std::string_view type_name() const override { return "LoopContext"; }
  std::optional<int64_t> length(Runtime&) const override {
    return static_cast<int64_t>(items_.size());
  }
  // loop(items) of a recursive loop: what its body writes for them.
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;

  bool is_running() const { return index_ < items_.size(); }
  void advance() { ++index_; }
  const Value& current() const { return items_[index_]; }
  // loop.changed(values): have they changed since the last call?
  bool changed(Runtime& runtime, const Values& values);
  Value cycle(const Values& values) const;

 private:
  const For& statement_;
  Scope& scope_;
  const Values items_;
  const int depth_;
  size_t index_ = 0;
  std::optional<Values> last_;
};

}  // namespace qlora::data::jinja
