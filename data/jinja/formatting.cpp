#include "data/jinja/formatting.h"

#include <fmt/format.h>

#include <cmath>

#include "base/utf8.h"
#include "data/jinja/containers.h"
#include "data/jinja/numbers.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

constexpr int64_t kMostPrecision = 1000;

std::string digits_in_base(uint64_t value, unsigned base, bool upper) {
  const std::string_view symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits += symbols[value % base];
    value /= base;
  } while (value > 0);
  return {digits.rbegin(), digits.rend()};
}

std::string group_by_comma(std::string digits) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t i = end; i > 3;) digits.insert(i -= 3, ",");
  return digits;
}

// Without its sign.
std::string format_integer(uint64_t magnitude, const FieldFormat& field) {
  std::string digits;
  switch (field.type) {
    case 'x':
    case 'X':
      digits = digits_in_base(magnitude, 16, field.type == 'X');
      if (field.alternate) digits.insert(0, field.type == 'x' ? "0x" : "0X");
      break;
    case 'o':
      digits = digits_in_base(magnitude, 8, false);
      if (field.alternate) digits.insert(0, "0o");
      break;
    case 'b':
      digits = digits_in_base(magnitude, 2, false);
      if (field.alternate) digits.insert(0, "0b");
      break;
    default:
      digits = digits_in_base(magnitude, 10, false);
  }
  return field.comma ? group_by_comma(digits) : digits;
}

// Without its sign.
std::string format_real(double value, const FieldFormat& field) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : "inf";
  const int precision = static_cast<int>(field.precision < 0 ? 6 : field.precision);
  std::string digits;
  switch (field.type) {
    case 'f':
    case 'F':
      digits = fmt::format("{:.{}f}", value, precision);
      break;
    case '%':
      digits = fmt::format("{:.{}f}%", value * 100, precision);
      break;
    case 'e':
      digits = fmt::format("{:.{}e}", value, precision);
      break;
    case 'E':
      digits = fmt::format("{:.{}E}", value, precision);
      break;
    case 'g':
      digits = fmt::format("{:.{}g}", value, std::max(precision, 1));
      break;
    case 'G':
      digits = fmt::format("{:.{}G}", value, std::max(precision, 1));
      break;
    default:
      digits = field.precision < 0 ? float_repr(value)
                                   : fmt::format("{:.{}g}", value, std::max(precision, 1));
  }
  return field.comma ? group_by_comma(digits) : digits;
}

std::string pad(Runtime& runtime, const std::string& sign, const std::string& body,
                const FieldFormat& field, char align) {
  const auto length = static_cast<int64_t>(count_code_points(body) + sign.size());
  if (field.width <= length) return sign + body;
  const auto missing = static_cast<size_t>(field.width - length);
  runtime.expect_text(missing + body.size());
  if (align == '=') return sign + std::string(missing, field.fill) + body;
  const size_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  return std::string(left, field.fill) + sign + body + std::string(missing - left, field.fill);
}

std::string sign_of(bool is_negative, const FieldFormat& field) {
  if (is_negative) return "-";
  return field.sign == '-' ? "" : std::string(1, field.sign);
}

bool is_real_type(char type) { return std::string_view("eEfFgG%").find(type) != std::string::npos; }

}  // namespace

std::string format_value(Runtime& runtime, const Value& value, const FieldFormat& field) {
  if (field.precision > kMostPrecision) {
    fail_render("a format's precision must be at most {}", kMostPrecision);
  }
  const bool as_text = field.type == 's' || (field.type == '\0' && !value.is_number()) ||
                       (field.type == '\0' && value.is_boolean());
  if (as_text) {
    std::string text = to_text(runtime, value);
    if (field.precision >= 0 && static_cast<size_t>(field.precision) < count_code_points(text)) {
      text = slice_text(*make_text(text), 0, field.precision, 1);
    }
    return pad(runtime, "", text, field, field.align == '\0' ? '<' : field.align);
  }
  if (value.is_undefined()) throw Failure(value.undefined_message());
  if (!value.is_number()) {
    fail_render("format '{}' needs a number, not {}", field.type, value.type_name());
  }
  const char align = field.align == '\0' ? '>' : field.align;
  if (value.is_real() || is_real_type(field.type)) {
    const double real = *value.as_real();
    if (!is_real_type(field.type) && field.type != '\0') {
      fail_render("format '{}' needs an integer, not a float", field.type);
    }
    return pad(runtime, sign_of(std::signbit(real) && !std::isnan(real), field),
               format_real(std::fabs(real), field), field, align);
  }
  const int64_t integer = *value.as_integer();
  if (field.type == 'c') {
    if (integer < 0 || integer > 0x10FFFF || (integer >= 0xD800 && integer < 0xE000)) {
      fail_render("format 'c' needs a character's number");
    }
    std::string character;
    append_utf8(static_cast<char32_t>(integer), character);
    return pad(runtime, "", character, field, align);
  }
  const uint64_t magnitude =
      integer < 0 ? uint64_t{0} - static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
  return pad(runtime, sign_of(integer < 0, field), format_integer(magnitude, field), field, align);
}

}  // namespace qlora::data::jinja
