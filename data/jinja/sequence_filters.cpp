#include <algorithm>

#include "data/jinja/containers.h"
#include "data/jinja/filters.h"
#include "data/jinja/numbers.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"
#include "data/jinja/split.h"

namespace qlora::data::jinja::filters {

Value part_of(Runtime& runtime, const Value& item, const Value& path, const Value& otherwise) {
  if (path.is_missing() || path.is_none()) return item;
  const auto step = [&](const Value& value, const Value& key) {
    Value part = item_of(runtime, value, key);
    return part.is_undefined() && !otherwise.is_missing() ? otherwise : part;
  };
  if (!path.is_text()) return step(item, path);
  Value value = item;
  for (const std::string_view name : split_at(path.bytes(), ".", -1, false)) {
    const bool is_number =
        !name.empty() && name.find_first_not_of("0123456789") == std::string_view::npos;
    const auto index = is_number ? parse_int(name, 10) : std::nullopt;
    value = step(value, index ? Value::integer(*index) : runtime.text(std::string(name)));
  }
  return value;
}

Value first(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("first", {}, arguments);
  if (Generator* generator = value.as<Generator>()) {
    if (auto next = generator->next(runtime)) return *next;
    return Value::undefined("No first item, sequence was empty.");
  }
  const Values all = collect(runtime, value);
  return all.empty() ? Value::undefined("No first item, sequence was empty.") : all.front();
}

Value last(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("last", {}, arguments);
  if (value.as<Generator>()) fail_render("'generator' object is not reversible");
  const Values all = collect(runtime, value);
  return all.empty() ? Value::undefined("No last item, sequence was empty.") : all.back();
}

Value length(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("length", {}, arguments);
  const auto count = length_of(runtime, value);
  if (!count) fail_render("object of type '{}' has no len()", value.type_name());
  return Value::integer(*count);
}

Value list(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("list", {}, arguments);
  return runtime.list(collect(runtime, value));
}

Value items(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("items", {}, arguments);
  if (value.is_undefined()) return runtime.generator({});
  Dict* dict = value.as<Dict>();
  if (!dict) fail_render("Can only get item pairs from a mapping, not {}", value.type_name());
  return runtime.generator(DictView(*dict, DictView::Kind::kItems).collect(runtime));
}

Value reverse(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("reverse", {}, arguments);
  if (value.is_text()) {
    return slice(runtime, value, Value(), Value(), Value::integer(-1));
  }
  const Values all = collect(runtime, value);
  return runtime.generator(Values(all.rbegin(), all.rend()));
}

Value join(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("join", {"d", "attribute"}, arguments);
  const std::string separator = given.has(0) ? to_text(runtime, given[0]) : "";
  std::string result;
  bool is_first = true;
  for (const Value& item : collect(runtime, value)) {
    const std::string part = to_text(runtime, part_of(runtime, item, given[1]));
    runtime.expect_text(part.size() + separator.size());
    if (!is_first) result += separator;
    result += part;
    is_first = false;
    if (result.size() > Limits::kTextBytes) runtime.expect_text(result.size());
  }
  return runtime.text(std::move(result));
}

Value sum(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("sum", {"attribute", "start"}, arguments);
  Value total = given.has(1) ? given[1] : Value::integer(0);
  if (total.is_text()) fail_render("sum() can't sum strings");
  for (const Value& item : collect(runtime, value)) {
    total = add(runtime, total, part_of(runtime, item, given[0]));
  }
  return total;
}

namespace {

// Rows of `size` items, the last filled up if a filler is given.
Value rows(Runtime& runtime, const Values& all, size_t size, const Value& filler) {
  Values result;
  for (size_t i = 0; i < all.size(); i += size) {
    const size_t end = std::min(all.size(), i + size);
    Values row(all.begin() + static_cast<std::ptrdiff_t>(i),
               all.begin() + static_cast<std::ptrdiff_t>(end));
    if (!filler.is_missing() && !filler.is_none() && row.size() < size) {
      runtime.expect_items(size);
      while (row.size() < size) row.push_back(filler);
    }
    result.push_back(runtime.list(std::move(row)));
  }
  return runtime.generator(std::move(result));
}

}  // namespace

Value batch(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("batch", {"linecount", "fill_with"}, arguments);
  given.required(0);
  const int64_t size = given.integer(0, 1);
  if (size < 1) fail_render("batch's linecount must be at least 1");
  if (static_cast<uint64_t>(size) > Limits::kContainerLength) {
    runtime.expect_items(Limits::kContainerLength + 1);
  }
  return rows(runtime, collect(runtime, value), static_cast<size_t>(size), given[1]);
}

// `slices` columns, the first ones longer by one if it does not come out even.
Value slice(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("slice", {"slices", "fill_with"}, arguments);
  given.required(0);
  const int64_t wanted = given.integer(0, 1);
  if (wanted < 1) fail_render("slice's slices must be at least 1");
  if (static_cast<uint64_t>(wanted) > Limits::kContainerLength) {
    runtime.expect_items(Limits::kContainerLength + 1);
  }
  const auto count = static_cast<size_t>(wanted);
  runtime.expect_items(count);
  const Values all = collect(runtime, value);
  const size_t size = all.size() / count, longer = all.size() % count;
  Values result;
  auto next = all.begin();
  for (size_t i = 0; i < count; ++i) {
    const auto end = next + static_cast<std::ptrdiff_t>(size + (i < longer ? 1 : 0));
    Values column(next, end);
    if (given.has(1) && !given[1].is_none() && i >= longer && longer > 0)
      column.push_back(given[1]);
    result.push_back(runtime.list(std::move(column)));
    next = end;
  }
  return runtime.generator(std::move(result));
}

}  // namespace qlora::data::jinja::filters
