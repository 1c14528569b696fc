// Numbers as Python reads and writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qlora::data::jinja {

std::string float_repr(double value);  // repr(float): shortest that reads back the same

// int(text, base) and float(text); nothing where Python raises ValueError, and for integers beyond
// 64 bits.
std::optional<int64_t> parse_int(std::string_view text, int base);
std::optional<double> parse_float(std::string_view text);

// Failure beyond 64 bits: Python would go on counting.
int64_t to_int64(double value);
[[noreturn]] void fail_on_integer_overflow();

double round_to(double value, int64_t digits);  // round(value, digits): half to even, exactly

}  // namespace qlora::data::jinja
