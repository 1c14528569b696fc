// Equality, order, membership and slices.
#include <algorithm>
#include <cmath>

#include "data/jinja/containers.h"
#include "data/jinja/operators.h"
#include "data/jinja/prefixes.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

bool equal_items(Runtime& runtime, const List& a, const List& b) {
  if (a.is_tuple != b.is_tuple || a.items().size() != b.items().size()) return false;
  return std::equal(a.items().begin(), a.items().end(), b.items().begin(),
                    [&](const Value& x, const Value& y) { return equal(runtime, x, y); });
}

bool equal_entries(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.entries().size() != b.entries().size()) return false;
  return std::all_of(a.entries().begin(), a.entries().end(), [&](const Dict::Entry& entry) {
    const Value* other = b.find(runtime, entry.first);
    return other && equal(runtime, entry.second, *other);
  });
}

// Exact also where an integer has no double of its own.
std::partial_ordering compare_numbers(const Value& a, const Value& b) {
  const auto x = a.as_integer(), y = b.as_integer();
  if (x && y) return *x <=> *y;
  if (!x && !y) return a.real() <=> b.real();
  const int64_t integer = x ? *x : *y;
  const double real = x ? b.real() : a.real();
  std::partial_ordering order = std::partial_ordering::unordered;
  if (real >= 9223372036854775808.0) {
    order = std::partial_ordering::less;
  } else if (real < -9223372036854775808.0) {
    order = std::partial_ordering::greater;
  } else if (!std::isnan(real)) {
    const auto whole = static_cast<int64_t>(std::floor(real));
    order = integer != whole ? integer <=> whole
                             : std::partial_ordering(0.0 <=> real - std::floor(real));
  }
  return x ? order : 0 <=> order;
}

}  // namespace

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.charge(1);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.is_text() && b.is_text()) {
    if (a.bytes().size() == b.bytes().size()) runtime.charge(a.bytes().size() / 64);
    return a.bytes() == b.bytes();
  }
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (!a.object() || !b.object()) return false;
  if (a.object() == b.object()) return true;
  const DepthGuard guard(runtime);
  const List* list = a.as<List>();
  if (list && b.as<List>()) return equal_items(runtime, *list, *b.as<List>());
  const Dict* dict = a.as<Dict>();
  if (dict && b.as<Dict>()) return equal_entries(runtime, *dict, *b.as<Dict>());
  const auto both = [&](auto* x, auto* y) { return x && y; };
  if (const auto* x = a.as<LongInteger>(), *y = b.as<LongInteger>(); both(x, y)) {
    return x->digits() == y->digits();
  }
  if (both(a.as<Range>(), b.as<Range>())) {
    const Value x = runtime.list(collect(runtime, a)), y = runtime.list(collect(runtime, b));
    return equal_items(runtime, *x.as<List>(), *y.as<List>());
  }
  return false;
}

std::partial_ordering compare(Runtime& runtime, const Value& a, const Value& b,
                              std::string_view symbol) {
  runtime.charge(1);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is_text() && b.is_text()) {
    runtime.charge(std::min(a.bytes().size(), b.bytes().size()) / 64);
    // UTF-8 sorts bytewise as its code points do.
    return a.bytes().compare(b.bytes()) <=> 0;
  }
  const List* x = a.as<List>();
  const List* y = b.as<List>();
  if (x && y && x->is_tuple == y->is_tuple) {
    const DepthGuard guard(runtime);
    for (size_t i = 0; i < std::min(x->items().size(), y->items().size()); ++i) {
      if (!equal(runtime, x->items()[i], y->items()[i])) {
        return compare(runtime, x->items()[i], y->items()[i], symbol);
      }
    }
    return x->items().size() <=> y->items().size();
  }
  for (const Value* one : {&a, &b}) {
    if (one->is_undefined()) throw Failure(one->undefined_message());
  }
  fail_render("'{}' not supported between instances of '{}' and '{}'", symbol, a.type_name(),
              b.type_name());
}

bool contains(Runtime& runtime, const Value& container, const Value& value) {
  if (container.is_text()) {
    if (value.is_undefined()) throw Failure(value.undefined_message());
    if (!value.is_text()) {
      fail_render("'in <string>' requires string as left operand, not {}", value.type_name());
    }
    runtime.charge(container.bytes().size() / 16);
    return container.bytes().find(value.bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.as<Dict>()) return dict->find(runtime, value) != nullptr;
  if (!is_iterable(container)) {
    fail_render("argument of type '{}' is not iterable", container.type_name());
  }
  for (const Value& item : collect(runtime, container)) {
    if (equal(runtime, item, value)) return true;
  }
  return false;
}

namespace {

struct Bounds {
  int64_t begin, end, step;
};

// slice(begin, end, step).indices(length)
Bounds clip(int64_t length, const Value& begin, const Value& end, const Value& step) {
  const auto given = [](const Value& value) -> std::optional<int64_t> {
    if (value.is_missing() || value.is_none()) return std::nullopt;
    if (value.is_undefined()) throw Failure(value.undefined_message());
    if (!value.as_integer()) {
      fail_render("slice indices must be integers or None, not {}", value.type_name());
    }
    return value.as_integer();
  };
  const int64_t stride = given(step).value_or(1);
  if (stride == 0) fail_render("slice step cannot be zero");
  const int64_t lowest = stride > 0 ? 0 : -1, highest = stride > 0 ? length : length - 1;
  const auto bound = [&](const std::optional<int64_t>& value, int64_t otherwise) {
    if (!value) return otherwise;
    if (*value >= 0) return std::min(*value, highest);
    return *value < -length ? lowest : std::max(*value + length, lowest);
  };
  return {bound(given(begin), stride > 0 ? lowest : highest),
          bound(given(end), stride > 0 ? highest : lowest), stride};
}

}  // namespace

Value slice(Runtime& runtime, const Value& container, const Value& begin, const Value& end,
            const Value& step) {
  if (container.is_undefined()) throw Failure(container.undefined_message());
  if (container.is_text()) {
    const Text& text = *container.text();
    const Bounds bounds = clip(static_cast<int64_t>(text.length), begin, end, step);
    runtime.charge(text.bytes.size() / (bounds.step == 1 ? 16 : 2));
    return runtime.text(slice_text(text, bounds.begin, bounds.end, bounds.step));
  }
  const List* list = container.as<List>();
  const bool is_range = container.as<Range>() != nullptr;
  // As jinja2: what cannot be sliced is undefined.
  if (!list && !is_range) {
    return Value::undefined("'" + std::string(container.type_name()) +
                            " object' has no element slice");
  }
  if (const auto* prefix = container.as<PrefixList>()) {
    const bool to_the_end = end.is_missing() || end.is_none();
    const bool one_by_one = step.is_missing() || step.is_none() || step.as_integer() == 1;
    const auto first = begin.as_integer();
    if (first && *first >= 0 && to_the_end && one_by_one) {
      return prefix->tail(runtime, static_cast<size_t>(*first));
    }
    const auto last = end.as_integer();
    const bool from_start = begin.is_missing() || begin.is_none();
    if (one_by_one && last && *last >= 0 && *last <= static_cast<int64_t>(prefix->visible()) &&
        (from_start || (first && *first >= 0))) {
      return prefix->part(runtime, from_start ? 0 : static_cast<size_t>(*first),
                          static_cast<size_t>(*last));
    }
  }
  const Values source = collect(runtime, container);
  const Bounds bounds = clip(static_cast<int64_t>(source.size()), begin, end, step);
  Values picked;
  for (int64_t i = bounds.begin; bounds.step > 0 ? i < bounds.end : i > bounds.end;) {
    picked.push_back(source[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, bounds.step, &i)) break;
  }
  return list && list->is_tuple ? runtime.tuple(std::move(picked))
                                : runtime.list(std::move(picked));
}

}  // namespace qlora::data::jinja
