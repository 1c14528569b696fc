#include "base/byte_size.h"

#include <cmath>
#include <exception>
#include <string_view>
#include <utility>

#include "base/ascii_case.h"

namespace qlora {

namespace {

// `exactly`: by the case of its letters alone a B is told from a b.
std::optional<int64_t> read_size(const std::string& text, bool exactly) {
  constexpr std::pair<const char*, double> kUnits[] = {
      {"TiB", 0x1p40}, {"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}, {"TB", 1e12},
      {"GB", 1e9},     {"MB", 1e6},     {"KB", 1e3},     {"", 1}};
  constexpr std::pair<const char*, double> kShort[] = {
      {"t", 1e12}, {"g", 1e9}, {"m", 1e6}, {"k", 1e3}};
  size_t used = 0;
  double number = 0;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    return std::nullopt;
  }
  std::string unit = text.substr(used);
  unit.erase(0, unit.find_first_not_of(' '));
  double bytes = 0;
  for (const auto& [name, factor] : kUnits)
    if (unit == name || (!exactly && ascii_lower_case(unit) == ascii_lower_case(name)))
      bytes = number * factor;
  for (const auto& [name, factor] : kShort)
    if (!exactly && ascii_lower_case(unit) == name) bytes = number * factor;
  if (!(bytes > 0) || bytes >= 1e18) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

}  // namespace

std::optional<int64_t> byte_size(const std::string& text) {
  return read_size(text, /*exactly=*/false);
}

std::optional<double> bytes_a_second(const std::string& text) {
  constexpr double kBits = 8;
  const std::string_view second = "/s", bits = "bit";
  if (!text.ends_with(second)) return std::nullopt;
  std::string size = text.substr(0, text.size() - second.size());
  const bool in_bits = size.ends_with(bits);
  if (in_bits) size.replace(size.size() - bits.size(), bits.size(), "B");
  const std::optional<int64_t> bytes = read_size(size, /*exactly=*/true);
  if (!bytes) return std::nullopt;
  return static_cast<double>(*bytes) / (in_bits ? kBits : 1);
}

}  // namespace qlora
