#include "data/jinja/runtime.h"

#include <algorithm>

#include "data/jinja/containers.h"

namespace qlora::data::jinja {

void Scope::set(std::string_view name, Value value) {
  const auto found = std::find_if(variables_.begin(), variables_.end(),
                                  [&](const auto& one) { return one.first == name; });
  if (found == variables_.end()) {
    variables_.emplace_back(name, std::move(value));
  } else {
    found->second = std::move(value);
  }
}

const Value* Scope::find(std::string_view name, size_t& scanned) const {
  for (const Scope* scope = this; scope; scope = scope->parent_) {
    scanned += 1 + scope->variables_.size();
    for (const auto& [held, value] : scope->variables_) {
      if (held == name) return &value;
    }
  }
  return nullptr;
}

void Runtime::fail_on_work() {
  throw Failure("this template takes too much work or memory (an endless repetition?)");
}

Scope& Runtime::new_scope(Scope* parent) {
  charge(10);
  scopes_.push_back(std::make_unique<Scope>(parent));
  return *scopes_.back();
}

Value Runtime::text(std::string bytes, bool markup) {
  if (bytes.size() > Limits::kTextBytes) expect_text(bytes.size());
  charge(4 + bytes.size() / 16);
  return make_text(std::move(bytes), markup);
}

Value Runtime::list(Values items) {
  charge(2 * items.size());
  return make<List>(std::move(items), false);
}

Value Runtime::tuple(Values items) {
  charge(2 * items.size());
  return make<List>(std::move(items), true);
}

Value Runtime::generator(Values items) {
  charge(2 * items.size());
  return make<Generator>(std::move(items));
}

void Runtime::write(std::string_view bytes) {
  charge(1 + bytes.size() / 16);
  if (output_->size() + bytes.size() > Limits::kTextBytes) {
    expect_text(output_->size() + bytes.size());
  }
  output_->append(bytes);
}

void Runtime::expect_text(size_t bytes) {
  if (bytes > Limits::kTextBytes) {
    fail_render("a text must have at most {} bytes", Limits::kTextBytes);
  }
  charge(bytes / 16);
}

void Runtime::expect_items(size_t count) {
  if (count > Limits::kContainerLength) {
    fail_render("a list must have at most {} items", Limits::kContainerLength);
  }
  charge(2 * count);
}

Runtime::Aside::Aside(Runtime& runtime, Scope& scope)
    : runtime_(runtime),
      work_left_(runtime.work_left_),
      output_size_(runtime.output_->size()),
      num_objects_(runtime.objects_.size()),
      num_scopes_(runtime.scopes_.size()) {
  for (Scope* one = &scope; one; one = one->parent())
    variables_.emplace_back(one, one->variables());
  runtime.undo_log_ = &undo_log_;
}

Runtime::Aside::~Aside() {
  runtime_.undo_log_ = nullptr;
  for (auto undo = undo_log_.rbegin(); undo != undo_log_.rend(); ++undo) (*undo)();
  for (auto& [scope, variables] : variables_) scope->set_back(std::move(variables));
  runtime_.work_of_asides_ += work_left_ - runtime_.work_left_;
  runtime_.work_left_ = work_left_;
  runtime_.output_->resize(output_size_);
  runtime_.objects_.resize(num_objects_);
  runtime_.scopes_.resize(num_scopes_);
}

SharedText Runtime::Aside::written() const {
  return {output_size_, runtime_.output_->substr(output_size_)};
}

}  // namespace qlora::data::jinja
