// The tests behind "is".
#include <algorithm>
#include <array>

#include "data/jinja/callables.h"
#include "data/jinja/containers.h"
#include "data/jinja/letter_case.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

// Tests of the value alone.
template <bool (*holds)(const Value&)>
bool alone(Runtime&, const Value& value, const Arguments& arguments) {
  const Parameters given("this test", {}, arguments);
  return holds(value);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is_boolean(); }
bool is_true_itself(const Value& value) { return value.is_boolean() && value.boolean(); }
bool is_false_itself(const Value& value) { return value.is_boolean() && !value.boolean(); }
bool is_integer(const Value& value) { return value.is_integer() || value.as<LongInteger>(); }
bool is_float(const Value& value) { return value.is_real(); }
bool is_number(const Value& value) { return value.is_number() || value.as<LongInteger>(); }
bool is_string(const Value& value) { return value.is_text(); }
bool is_mapping(const Value& value) { return value.as<Dict>() != nullptr; }
bool is_escaped(const Value& value) { return value.is_markup(); }
bool is_sequence(const Value& value) {
  if (value.is_text() || value.is_undefined()) return true;
  return value.object() && value.object()->has_items();
}

// Tests against another value.
template <bool (*holds)(Runtime&, const Value&, const Value&)>
bool against(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("this test", {"other"}, arguments);
  return holds(runtime, value, given.required(0));
}

bool eq(Runtime& r, const Value& a, const Value& b) { return equal(r, a, b); }
bool ne(Runtime& r, const Value& a, const Value& b) { return !equal(r, a, b); }
bool lt(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, "<") < 0; }
bool le(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, "<=") <= 0; }
bool gt(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, ">") > 0; }
bool ge(Runtime& r, const Value& a, const Value& b) { return compare(r, a, b, ">=") >= 0; }
bool in(Runtime& r, const Value& a, const Value& b) { return contains(r, b, a); }

bool same_as(Runtime& runtime, const Value& a, const Value& b) {
  if (a.object() || b.object()) return a.object() == b.object();
  return a.type_name() == b.type_name() && equal(runtime, a, b);
}

bool is_divisible(Runtime& runtime, const Value& a, const Value& b) {
  return equal(runtime, modulo(runtime, a, b), Value::integer(0));
}

template <int64_t rest>
bool has_rest_of_two(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("this test", {}, arguments);
  return equal(runtime, modulo(runtime, value, Value::integer(2)), Value::integer(rest));
}

// str(value).islower() or isupper()
template <bool (*holds)(char32_t)>
bool has_case(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("this test", {}, arguments);
  bool any = false;
  for (const char32_t code : to_code_points(to_text(runtime, value))) {
    if (is_cased(code) && !holds(code)) return false;
    any = any || holds(code);
  }
  return any;
}

template <typename Body, Body (*find)(std::string_view)>
bool is_known(Runtime&, const Value& value, const Arguments& arguments) {
  const Parameters given("this test", {}, arguments);
  return value.is_text() && find(value.bytes()) != nullptr;
}

struct Entry {
  std::string_view name;
  TestBody body;
};
constexpr std::array kTests = {
    Entry{"!=", against<ne>},
    Entry{"<", against<lt>},
    Entry{"<=", against<le>},
    Entry{"==", against<eq>},
    Entry{">", against<gt>},
    Entry{">=", against<ge>},
    Entry{"boolean", alone<is_boolean>},
    Entry{"callable", alone<is_callable>},
    Entry{"defined", alone<is_defined>},
    Entry{"divisibleby", against<is_divisible>},
    Entry{"eq", against<eq>},
    Entry{"equalto", against<eq>},
    Entry{"escaped", alone<is_escaped>},
    Entry{"even", has_rest_of_two<0>},
    Entry{"false", alone<is_false_itself>},
    Entry{"filter", is_known<MethodBody, find_filter>},
    Entry{"float", alone<is_float>},
    Entry{"ge", against<ge>},
    Entry{"greaterthan", against<gt>},
    Entry{"gt", against<gt>},
    Entry{"in", against<in>},
    Entry{"integer", alone<is_integer>},
    Entry{"iterable", alone<is_iterable>},
    Entry{"le", against<le>},
    Entry{"lessthan", against<lt>},
    Entry{"lower", has_case<is_lower>},
    Entry{"lt", against<lt>},
    Entry{"mapping", alone<is_mapping>},
    Entry{"ne", against<ne>},
    Entry{"none", alone<is_none>},
    Entry{"number", alone<is_number>},
    Entry{"odd", has_rest_of_two<1>},
    Entry{"sameas", against<same_as>},
    Entry{"sequence", alone<is_sequence>},
    Entry{"string", alone<is_string>},
    Entry{"test", is_known<TestBody, find_test>},
    Entry{"true", alone<is_true_itself>},
    Entry{"undefined", alone<is_undefined>},
    Entry{"upper", has_case<is_upper>},
};

}  // namespace

TestBody find_test(std::string_view name) {
  const auto* found =
      std::find_if(kTests.begin(), kTests.end(), [&](const Entry& e) { return e.name == name; });
  return found == kTests.end() ? nullptr : found->body;
}

}  // namespace qlora::data::jinja
