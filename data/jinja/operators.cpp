#include "data/jinja/operators.h"

#include <cmath>

#include "data/jinja/containers.h"
#include "data/jinja/formatting.h"
#include "data/jinja/numbers.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

[[noreturn]] void fail_on_types(std::string_view symbol, const Value& a, const Value& b) {
  for (const Value* one : {&a, &b}) {
    if (one->is_undefined()) throw Failure(one->undefined_message());
  }
  fail_render("unsupported operand type(s) for {}: '{}' and '{}'", symbol, a.type_name(),
              b.type_name());
}

// Integers if both are, else reals.
template <typename IntegerOperation, typename RealOperation>
Value arithmetic(std::string_view symbol, const Value& a, const Value& b,
                 const IntegerOperation& on_integers, const RealOperation& on_reals) {
  const auto x = a.as_integer(), y = b.as_integer();
  if (x && y) return Value::integer(on_integers(*x, *y));
  const auto p = a.as_real(), q = b.as_real();
  if (!p || !q) fail_on_types(symbol, a, b);
  return Value::real(on_reals(*p, *q));
}

[[noreturn]] void fail_on_zero() { fail_render("division by zero"); }

double floor_modulo(double x, double y) {
  if (y == 0) fail_on_zero();
  const double rest = std::fmod(x, y);
  if (rest != 0 && (rest < 0) != (y < 0)) return rest + y;
  return rest == 0 ? std::copysign(0.0, y) : rest;
}

double floor_quotient(double x, double y) {
  const double rest = floor_modulo(x, y);
  const double quotient = (x - rest) / y;
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

int64_t integer_quotient(int64_t x, int64_t y) {
  if (y == 0) fail_on_zero();
  if (y == -1) {
    if (x == INT64_MIN) fail_on_integer_overflow();
    return -x;
  }
  return x / y - (x % y != 0 && (x % y < 0) != (y < 0) ? 1 : 0);
}

int64_t integer_modulo(int64_t x, int64_t y) {
  if (y == 0) fail_on_zero();
  if (y == -1) return 0;
  const int64_t rest = x % y;
  return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}

int64_t integer_power(int64_t base, int64_t exponent) {
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) fail_on_integer_overflow();
  }
  return result;
}

// "ab" * 3 and [x] * 3.
Value repeat(Runtime& runtime, const Value& what, int64_t times) {
  const size_t count = times > 0 ? static_cast<size_t>(times) : 0;
  if (what.is_text()) {
    const std::string& bytes = what.bytes();
    if (!bytes.empty() && count > Limits::kTextBytes / bytes.size()) {
      runtime.expect_text(Limits::kTextBytes + 1);
    }
    runtime.expect_text(bytes.size() * count);
    std::string result;
    result.reserve(bytes.size() * count);
    for (size_t i = 0; i < count && !bytes.empty(); ++i) result += bytes;
    return runtime.text(std::move(result), what.is_markup());
  }
  const List& list = *what.as<List>();
  if (!list.items().empty() && count > Limits::kContainerLength / list.items().size()) {
    runtime.expect_items(Limits::kContainerLength + 1);
  }
  runtime.expect_items(list.items().size() * count);
  Values items;
  for (size_t i = 0; i < count && !list.items().empty(); ++i) {
    items.insert(items.end(), list.items().begin(), list.items().end());
  }
  return list.is_tuple ? runtime.tuple(std::move(items)) : runtime.list(std::move(items));
}

Value join_texts(Runtime& runtime, const Value& a, const Value& b) {
  const bool markup = a.is_markup() || b.is_markup();
  const auto part = [&](const Value& value) {
    return markup && !value.is_markup() ? escape_html(value.bytes()) : value.bytes();
  };
  runtime.expect_text(a.bytes().size() + b.bytes().size());
  return runtime.text(part(a) + part(b), markup);
}

}  // namespace

Value add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_text() && b.is_text()) return join_texts(runtime, a, b);
  const List* x = a.as<List>();
  const List* y = b.as<List>();
  if (x && y && x->is_tuple == y->is_tuple) {
    runtime.expect_items(x->items().size() + y->items().size());
    Values items = x->items();
    items.insert(items.end(), y->items().begin(), y->items().end());
    return x->is_tuple ? runtime.tuple(std::move(items)) : runtime.list(std::move(items));
  }
  if (a.is_text() && !b.is_undefined()) {
    fail_render("can only concatenate str (not \"{}\") to str", b.type_name());
  }
  return arithmetic(
      "+", a, b,
      [](int64_t p, int64_t q) {
        if (__builtin_add_overflow(p, q, &p)) fail_on_integer_overflow();
        return p;
      },
      [](double p, double q) { return p + q; });
}

Value subtract(Runtime&, const Value& a, const Value& b) {
  return arithmetic(
      "-", a, b,
      [](int64_t p, int64_t q) {
        if (__builtin_sub_overflow(p, q, &p)) fail_on_integer_overflow();
        return p;
      },
      [](double p, double q) { return p - q; });
}

Value multiply(Runtime& runtime, const Value& a, const Value& b) {
  const auto is_sequence = [](const Value& value) { return value.is_text() || value.as<List>(); };
  if (is_sequence(a) && b.as_integer()) return repeat(runtime, a, *b.as_integer());
  if (is_sequence(b) && a.as_integer()) return repeat(runtime, b, *a.as_integer());
  return arithmetic(
      "*", a, b,
      [](int64_t p, int64_t q) {
        if (__builtin_mul_overflow(p, q, &p)) fail_on_integer_overflow();
        return p;
      },
      [](double p, double q) { return p * q; });
}

Value divide(Runtime&, const Value& a, const Value& b) {
  const auto x = a.as_real(), y = b.as_real();
  if (!x || !y) fail_on_types("/", a, b);
  if (*y == 0) fail_on_zero();
  return Value::real(*x / *y);
}

Value floor_divide(Runtime&, const Value& a, const Value& b) {
  return arithmetic("//", a, b, integer_quotient, floor_quotient);
}

Value modulo(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_text()) return format_percent(runtime, a, b);
  return arithmetic("%", a, b, integer_modulo, floor_modulo);
}

Value power(Runtime&, const Value& a, const Value& b) {
  const auto x = a.as_integer(), y = b.as_integer();
  if (x && y && *y >= 0) return Value::integer(integer_power(*x, *y));
  const auto p = a.as_real(), q = b.as_real();
  if (!p || !q) fail_on_types("**", a, b);
  if (*p == 0 && *q < 0) fail_render("zero cannot be raised to a negative power");
  if (*p < 0 && *q != std::floor(*q)) fail_render("a negative number's power must be whole");
  const double result = std::pow(*p, *q);
  if (std::isinf(result) && std::isfinite(*p) && std::isfinite(*q)) {
    fail_render("the power is too large for a float");
  }
  return Value::real(result);
}

Value negate(Runtime& runtime, const Value& a) {
  return a.is_real() ? Value::real(-a.real()) : subtract(runtime, Value::integer(0), a);
}

Value positive(Runtime& runtime, const Value& a) {
  return a.is_real() ? a : add(runtime, Value::integer(0), a);
}

}  // namespace qlora::data::jinja
