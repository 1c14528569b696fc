#include <cmath>

#include "data/jinja/containers.h"
#include "data/jinja/filters.h"
#include "data/jinja/numbers.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja::filters {

Value absolute(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("abs", {}, arguments);
  if (value.is_undefined()) throw Failure(value.undefined_message());
  if (!value.is_number()) fail_render("bad operand type for abs(): '{}'", value.type_name());
  if (value.is_real()) return Value::real(std::fabs(value.real()));
  return *value.as_integer() < 0 ? negate(runtime, value) : positive(runtime, value);
}

Value attribute(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("attr", {"name"}, arguments);
  given.required(0);
  return own_attribute_of(runtime, value, given.text(0, ""));
}

Value otherwise(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("default", {"default_value", "boolean"}, arguments);
  const bool replaced =
      value.is_undefined() || (given.truth(runtime, 1, false) && !is_true(runtime, value));
  if (!replaced) return value;
  return given.has(0) ? given[0] : runtime.text("");
}

Value to_int(Runtime&, const Value& value, const Arguments& arguments) {
  const Parameters given("int", {"default", "base"}, arguments);
  if (value.is_undefined()) throw Failure(value.undefined_message());
  const Value fallback = given.has(0) ? given[0] : Value::integer(0);
  if (const auto integer = value.as_integer()) return Value::integer(*integer);
  if (value.as<LongInteger>()) return value;
  std::optional<double> real;
  if (value.is_text()) {
    const int64_t base = given.integer(1, 10);
    if (base < 0 || base > 36) fail_render("int's base must be 0 or from 2 to 36");
    if (const auto integer = parse_int(value.bytes(), static_cast<int>(base))) {
      return Value::integer(*integer);
    }
    real = parse_float(value.bytes());
  } else if (value.is_real()) {
    real = value.real();
  }
  if (!real || !std::isfinite(*real)) return fallback;
  return Value::integer(to_int64(std::trunc(*real)));
}

Value to_float(Runtime&, const Value& value, const Arguments& arguments) {
  const Parameters given("float", {"default"}, arguments);
  if (value.is_undefined()) throw Failure(value.undefined_message());
  const auto real = value.is_text() ? parse_float(value.bytes()) : value.as_real();
  if (real) return Value::real(*real);
  return given.has(0) ? given[0] : Value::real(0.0);
}

Value round(Runtime&, const Value& value, const Arguments& arguments) {
  const Parameters given("round", {"precision", "method"}, arguments);
  const int64_t precision = given.integer(0, 0);
  const std::string method = given.text(1, "common");
  if (value.is_undefined()) throw Failure(value.undefined_message());
  const auto real = value.as_real();
  if (!real) fail_render("round needs a number, not {}", value.type_name());
  if (method == "common") {
    const auto integer = value.as_integer();
    if (integer && precision >= 0) return Value::integer(*integer);
    const double rounded = round_to(*real, precision);
    return integer ? Value::integer(to_int64(rounded)) : Value::real(rounded);
  }
  if (method != "ceil" && method != "floor") {
    fail_render("round's method must be common, ceil or floor");
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  return Value::real((method == "ceil" ? std::ceil(*real * unit) : std::floor(*real * unit)) /
                     unit);
}

}  // namespace qlora::data::jinja::filters
