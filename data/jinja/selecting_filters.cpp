// map, select and reject: filters that apply other filters and tests to every item.
#include "data/jinja/filters.h"
#include "data/jinja/prefixes.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja::filters {
namespace {

// The name at `at` among the arguments, and behind it the arguments for what it names.
std::string take_name(const Arguments& arguments, size_t at, std::string_view what) {
  const Value& name = arguments.positional[at];
  if (!name.is_text()) fail_render("the name of a {} must be a string", what);
  return name.bytes();
}

Arguments arguments_behind(const Arguments& arguments, size_t at) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(at));
  return rest;
}

// Items whose `path` part passes the test that the arguments from `at` on name (is it true, if
// they name none) - or fails it.
Value choose(Runtime& runtime, const Value& value, const Arguments& arguments, size_t at,
             const Value& path, bool wanted) {
  // None and other false values count as empty.
  if (!is_true(runtime, value)) return runtime.generator({});
  TestBody test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > at) {
    const std::string name = take_name(arguments, at, "test");
    test = find_test(name);
    if (!test) fail_render("there is no test '{}'", name);
    rest = arguments_behind(arguments, at + 1);
  }
  return runtime.generator(items_where(runtime, value, [&](const Value& item) {
    runtime.charge(1);
    const Value part = part_of(runtime, item, path);
    return (test ? test(runtime, part, rest) : is_true(runtime, part)) == wanted;
  }));
}

const Value& required_path(const Arguments& arguments) {
  if (arguments.positional.empty()) fail_render("the name of an attribute is needed");
  return arguments.positional[0];
}

}  // namespace

Value select(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return choose(runtime, value, arguments, 0, Value(), true);
}

Value reject(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return choose(runtime, value, arguments, 0, Value(), false);
}

Value select_attribute(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return choose(runtime, value, arguments, 1, required_path(arguments), true);
}

Value reject_attribute(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return choose(runtime, value, arguments, 1, required_path(arguments), false);
}

Value map(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!is_true(runtime, value)) return runtime.generator({});
  const bool by_attribute = arguments.positional.empty();
  Value path, otherwise;
  MethodBody filter = nullptr;
  Arguments rest;
  if (by_attribute) {
    const Parameters given("map", {"attribute", "default"}, arguments);
    path = given.required(0);
    otherwise = given[1];
  } else {
    const std::string name = take_name(arguments, 0, "filter");
    filter = find_filter(name);
    if (!filter) fail_render("there is no filter '{}'", name);
    rest = arguments_behind(arguments, 1);
  }
  const DepthGuard guard(runtime);
  Values mapped;
  for (const Value& item : collect(runtime, value)) {
    runtime.charge(1);
    mapped.push_back(filter ? filter(runtime, item, rest)
                            : part_of(runtime, item, path, otherwise));
  }
  return runtime.generator(std::move(mapped));
}

}  // namespace qlora::data::jinja::filters
