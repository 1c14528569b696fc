#include "data/jinja/prefixes.h"

#include <algorithm>

namespace qlora::data::jinja {

bool Prefixes::begins_aside(size_t length, const Runtime& runtime) {
  if (aside_ || is_passed_by_ || !runtime.can_run_outer_rest()) return false;
  while (next_ < wanted_.size() && wanted_[next_] < length) ++next_;
  if (next_ == wanted_.size() || wanted_[next_] != length) return false;
  ++next_;
  return needed_ <= length;
}

size_t PrefixList::visible() const {
  return std::min(whole().size(), prefixes_.visible() - std::min(offset_, prefixes_.visible()));
}

Values PrefixList::visible_items(Runtime& runtime) const {
  runtime.charge(visible());
  return Values(whole().begin(), whole().begin() + static_cast<std::ptrdiff_t>(visible()));
}

const Values& PrefixList::items() const {
  prefixes_.needs_all();
  const size_t count = visible();
  if (count == whole().size()) return whole();
  if (seen_.size() != count) {
    seen_.assign(whole().begin(), whole().begin() + static_cast<std::ptrdiff_t>(count));
  }
  return seen_;
}

std::optional<int64_t> PrefixList::length(Runtime&) const {
  prefixes_.needs_all();
  return static_cast<int64_t>(visible());
}

bool PrefixList::is_true(Runtime&) const {
  if (visible() == 0) {
    prefixes_.needs_all();
    return false;
  }
  prefixes_.needs(offset_ + 1);
  return true;
}

Values PrefixList::collect(Runtime& runtime) {
  runtime.charge(visible());
  return items();
}

std::optional<Value> PrefixList::item(Runtime& runtime, const Value& key) {
  const auto index = key.as_integer();
  if (!index || *index < 0 || *index >= static_cast<int64_t>(visible())) {
    prefixes_.needs_all();
    return List::item(runtime, key);
  }
  prefixes_.needs(offset_ + static_cast<size_t>(*index) + 1);
  return whole()[static_cast<size_t>(*index)];
}

Value PrefixList::part(Runtime& runtime, size_t begin, size_t end) const {
  needs_first(end);
  if (begin >= end) return runtime.list({});
  return runtime.list(Values(whole().begin() + static_cast<std::ptrdiff_t>(begin),
                             whole().begin() + static_cast<std::ptrdiff_t>(end)));
}

Value PrefixList::tail(Runtime& runtime, size_t begin) const {
  const auto first = static_cast<std::ptrdiff_t>(std::min(begin, whole().size()));
  runtime.expect_items(whole().size() - static_cast<size_t>(first));
  return runtime.make<PrefixList>(Values(whole().begin() + first, whole().end()), offset_ + begin,
                                  prefixes_);
}

}  // namespace qlora::data::jinja
