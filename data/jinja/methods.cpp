#include "data/jinja/methods.h"

#include <algorithm>
#include <array>

#include "data/jinja/containers.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

Value dict_get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("get", {"key", "default"}, arguments);
  const Value* found = self.as<Dict>()->find(runtime, given.required(0));
  if (found) return *found;
  return given.has(1) ? given[1] : Value(None{});
}

template <DictView::Kind kind>
Value dict_view(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("a dict's view", {}, arguments);
  return runtime.make<DictView>(*self.as<Dict>(), kind);
}

// Nothing changes, so a copy is the thing itself.
Value copy(Runtime&, const Value& self, const Arguments& arguments) {
  const Parameters given("copy", {}, arguments);
  return self;
}

Value list_index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("index", {"value"}, arguments);
  const Values& items = self.as<List>()->items();
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(runtime, items[i], given.required(0))) return Value::integer(static_cast<int64_t>(i));
  }
  fail_render("the value looked for is not in the list");
}

Value list_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("count", {"value"}, arguments);
  const Values& items = self.as<List>()->items();
  return Value::integer(std::count_if(items.begin(), items.end(), [&](const Value& item) {
    return equal(runtime, item, given.required(0));
  }));
}

}  // namespace

MethodBody find_method(const Value& value, std::string_view name) {
  if (value.is_text()) return find_text_method(name);
  if (value.as<Dict>()) {
    if (name == "get") return dict_get;
    if (name == "items") return dict_view<DictView::Kind::kItems>;
    if (name == "keys") return dict_view<DictView::Kind::kKeys>;
    if (name == "values") return dict_view<DictView::Kind::kValues>;
    if (name == "copy") return copy;
  }
  if (const List* list = value.as<List>()) {
    if (name == "index") return list_index;
    if (name == "count") return list_count;
    if (name == "copy" && !list->is_tuple) return copy;
  }
  return nullptr;
}

bool changes_its_object(const Value& value, std::string_view name) {
  static constexpr std::array<std::string_view, 5> kOfDicts = {"clear", "pop", "popitem",
                                                               "setdefault", "update"};
  static constexpr std::array<std::string_view, 8> kOfLists = {
      "append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};
  const auto has = [&](const auto& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (value.as<Dict>()) return has(kOfDicts);
  const List* list = value.as<List>();
  return list && !list->is_tuple && has(kOfLists);
}

}  // namespace qlora::data::jinja
