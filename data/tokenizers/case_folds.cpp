#include "data/tokenizers/case_folds.h"

#include <string>

#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {

bool folds_alike(char32_t code) {
  using unicode_tables::Category;
  const bool is_latin_1 = code >= 0xC0 && code <= 0xFF && code != 0xDF;
  const bool is_cyrillic = code >= 0x410 && code <= 0x44F;
  if (code < 0x80 || is_latin_1 || is_cyrillic) return true;
  const uint8_t value = unicode_tables::value_at(unicode_tables::kClasses, code);
  if (value & unicode_tables::kNew) return false;
  const auto category = static_cast<Category>(value & unicode_tables::kCategory);
  const bool is_sign = category >= Category::kPc && category <= Category::kSk;
  return is_sign || category == Category::kLo || category == Category::kNd ||
         category == Category::kZs;
}

bool folds_to_one(char first, char second) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  const std::string pair = {lower(first), lower(second)};
  for (const char* known : {"ss", "ff", "fi", "fl", "st"})
    if (pair == known) return true;
  return false;
}

}  // namespace qlora::data
