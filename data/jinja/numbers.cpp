#include "data/jinja/numbers.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "data/jinja/runtime.h"
#include "data/jinja/text.h"

namespace qlora::data::jinja {
namespace {

std::string without_underscores(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  return digits;
}

// Underscores may only stand alone between digits.
bool has_stray_underscore(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') continue;
    const bool inside = i > 0 && i + 1 < text.size() && std::isxdigit(text[i - 1]) != 0 &&
                        std::isxdigit(text[i + 1]) != 0;
    if (!inside) return true;
  }
  return false;
}

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view text(buffer.data(), static_cast<size_t>(end - buffer.data()));
  const size_t e = text.find('e');
  int exponent = 0;
  const std::string_view digits_of_exponent = text.substr(e + (text[e + 1] == '+' ? 2 : 1));
  std::from_chars(digits_of_exponent.data(), digits_of_exponent.data() + digits_of_exponent.size(),
                  exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::array<char, 400> fixed;
  const auto fixed_end =
      std::to_chars(fixed.data(), fixed.data() + fixed.size(), value, std::chars_format::fixed).ptr;
  std::string result(fixed.data(), fixed_end);
  if (result.find('.') == std::string::npos) result += ".0";
  return result;
}

std::optional<int64_t> parse_int(std::string_view text, int base) {
  text = strip(text, true, true);
  const bool is_negative = text.starts_with('-');
  if (is_negative || text.starts_with('+')) text.remove_prefix(1);
  const auto prefixed = [&](char lower, char upper) {
    return text.size() > 1 && text[0] == '0' && (text[1] == lower || text[1] == upper);
  };
  const int written = prefixed('x', 'X')   ? 16
                      : prefixed('o', 'O') ? 8
                      : prefixed('b', 'B') ? 2
                                           : 10;
  if (written != 10 && (base == 0 || base == written)) {
    base = written;
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || has_stray_underscore(text)) return std::nullopt;
  const std::string digits = (is_negative ? "-" : "") + without_underscores(text);
  int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, value, base);
  if (result.ec != std::errc() || result.ptr != end || text.starts_with('-')) return std::nullopt;
  return value;
}

std::optional<double> parse_float(std::string_view text) {
  text = strip(text, true, true);
  if (has_stray_underscore(text)) return std::nullopt;
  const std::string digits = without_underscores(text.starts_with('+') ? text.substr(1) : text);
  double value = 0;
  const char* end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, value);
  if (result.ptr != end || digits.empty() || (text[0] == '+' && digits[0] == '-')) {
    return std::nullopt;
  }
  if (result.ec == std::errc::result_out_of_range) return std::strtod(digits.c_str(), nullptr);
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

void fail_on_integer_overflow() { fail_render("an integer must fit in 64 bits"); }

int64_t to_int64(double value) {
  if (!(value >= -9223372036854775808.0 && value < 9223372036854775808.0)) {
    fail_on_integer_overflow();
  }
  return static_cast<int64_t>(value);
}

double round_to(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 330) return value;
  if (digits < -310) return 0.0 * value;
  if (digits >= 0) {
    return std::strtod(fmt::format("{:.{}f}", value, digits).c_str(), nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

}  // namespace qlora::data::jinja
