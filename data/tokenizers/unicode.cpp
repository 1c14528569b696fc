#include "data/tokenizers/unicode.h"

#include <algorithm>

#include "base/utf8.h"
#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {

bool is_white_space(char32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_number(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  return unicode_tables::value_at(unicode_tables::kNumbers, code) != 0;
}

bool is_punctuation(char32_t code) {
  return unicode_tables::value_at(unicode_tables::kPunctuation, code) != 0;
}

bool is_word_character(char32_t code) {
  using unicode_tables::Category;
  if (code < 0x80) {
    return (code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') ||
           (code >= 'a' && code <= 'z') || code == '_';
  }
  if (code == 0x200C || code == 0x200D) return true;
  const uint8_t value = unicode_tables::value_at(unicode_tables::kClasses, code);
  if (value & unicode_tables::kAlphabetic) return true;
  const auto category = static_cast<Category>(value & unicode_tables::kCategory);
  const bool is_mark = category >= Category::kMn && category <= Category::kMe;
  return is_mark || category == Category::kNd || category == Category::kPc;
}

std::string to_lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t index = 0; index < text.size();) {
    const char32_t code = next_code_point(text, index);
    if (code < 0x80) {
      out += static_cast<char>(code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code);
      continue;
    }
    const std::u32string_view lower = unicode_tables::kLower.find(code);
    if (lower.empty()) append_utf8(code, out);
    for (const char32_t part : lower) append_utf8(part, out);
  }
  return out;
}

}  // namespace qlora::data
