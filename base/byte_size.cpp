#include "base/byte_size.h"

#include <cmath>
#include <exception>
#include <utility>

namespace qlora {

std::optional<int64_t> byte_size(const std::string& text) {
  constexpr std::pair<const char*, double> kUnits[] = {
      {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"GB", 1e9}, {"MB", 1e6}, {"", 1}};
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

}  // namespace qlora
