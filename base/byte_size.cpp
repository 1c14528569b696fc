#include "base/byte_size.h"

#include <cmath>
#include <exception>
#include <string_view>
#include <utility>

namespace qlora {

std::optional<int64_t> byte_size(const std::string& text) {
  constexpr std::pair<const char*, double> kUnits[] = {
      {"TiB", 0x1p40}, {"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}, {"TB", 1e12},
      {"GB", 1e9},     {"MB", 1e6},     {"KB", 1e3},     {"", 1}};
  size_t used = 0;
  double number = 0;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    return std::nullopt;
  }
  std::string unit = text.substr(used);
  unit.erase(0, unit.find_first_not_of(' '));
  for (const auto& [name, factor] : kUnits)
    if (number > 0 && std::isfinite(number * factor) && number * factor < 1e18 && unit == name)
      return static_cast<int64_t>(number * factor);
  return std::nullopt;
}

std::optional<double> bytes_a_second(const std::string& text) {
  constexpr double kBits = 8;
  const std::string_view second = "/s", bits = "bit";
  if (!text.ends_with(second)) return std::nullopt;
  std::string size = text.substr(0, text.size() - second.size());
  const bool in_bits = size.ends_with(bits);
  if (in_bits) size.replace(size.size() - bits.size(), bits.size(), "B");
  const std::optional<int64_t> bytes = byte_size(size);
  if (!bytes) return std::nullopt;
  return static_cast<double>(*bytes) / (in_bits ? kBits : 1);
}

}  // namespace qlora
