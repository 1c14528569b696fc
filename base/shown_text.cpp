#include "base/shown_text.h"

#include <fmt/format.h>

#include <cstdint>

namespace qlora {
namespace {

constexpr size_t kLongest = 4000, kKeptOfEachEnd = 1900;

// How many bytes of UTF-8 the character at the front takes; 0 if it is none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t count = first >= 0xF5   ? 0
                       : first >= 0xF0 ? 4
                       : first >= 0xE0 ? 3
                       : first >= 0xC2 ? 2
                                       : 0;
  if (count == 0 || text.size() < count) return 0;
  for (size_t i = 1; i < count; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const uint8_t second = byte(1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool surrogate = first == 0xED && second >= 0xA0;
  const bool beyond = first == 0xF4 && second >= 0x90;
  return overlong || surrogate || beyond ? 0 : count;
}

bool is_control(std::string_view character) {
  const auto first = static_cast<uint8_t>(character[0]);
  if (character.size() == 2)
    return first == 0xC2 && static_cast<uint8_t>(character[1]) < 0xA0;  // C1
  return (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F;
}

std::string escaped(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    const size_t count = character_bytes(text);
    const std::string_view character = text.substr(0, count);
    if (count == 0) {
      shown += "\uFFFD";
    } else if (is_control(character)) {
      shown += fmt::format("\\x{:02X}", static_cast<uint8_t>(character.back()));
    } else {
      shown += character;
    }
    text.remove_prefix(count == 0 ? 1 : count);
  }
  return shown;
}

}  // namespace

std::string shown_text(std::string_view text) {
  if (text.size() <= kLongest) return escaped(text);
  return fmt::format("{} ... ({} bytes left out) ... {}", escaped(text.substr(0, kKeptOfEachEnd)),
                     text.size() - 2 * kKeptOfEachEnd,
                     escaped(text.substr(text.size() - kKeptOfEachEnd)));
}

}  // namespace qlora
