#include "io/names_beside.h"

#include <fmt/format.h>

#include <cstdint>
#include <random>

namespace qlora::io {

std::string name_beside(const std::string& path, std::string_view mark) {
  static_assert(kRandomDigits == 2 * 8);
  std::random_device random;
  const uint32_t high = random(), low = random();
  return fmt::format("{}{}{:08x}{:08x}", path, mark, high, low);
}

std::string name_stood_for(const std::string& name, std::string_view mark) {
  const size_t at = name.rfind(mark);
  if (at == std::string::npos || at + mark.size() + kRandomDigits != name.size()) return "";
  const bool is_random =
      name.find_first_not_of("0123456789abcdef", at + mark.size()) == std::string::npos;
  return is_random ? name.substr(0, at) : "";
}

}  // namespace qlora::io
