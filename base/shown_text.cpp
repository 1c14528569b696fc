#include "base/shown_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "base/utf8.h"

namespace qlora {
namespace {

constexpr size_t kLongest = 4000, kKeptOfEachEnd = 1900;
constexpr size_t kMost = 64 * kLongest;  // of all lines, such as a list of faults

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
    const size_t count = whole_utf8_character(text, 0);
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

std::string cut(std::string_view text) {
  const std::string_view begin = utf8_beginning(text, kKeptOfEachEnd),
                         end = utf8_end(text, kKeptOfEachEnd);
  return fmt::format("{} ... ({} bytes left out) ... {}", escaped(begin),
                     text.size() - begin.size() - end.size(), escaped(end));
}

}  // namespace

std::string shown_text(std::string_view text) {
  if (text.size() <= kLongest) return escaped(text);
  if (text.size() > kMost) return cut(text);
  std::string shown;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    shown += line.size() <= kLongest ? escaped(line) : cut(line);
    if (end < text.size()) shown += '\n';
    begin = end + 1;
  }
  return shown;
}

}  // namespace qlora
