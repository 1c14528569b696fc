#include "data/tokenizers/case_folds.h"

#include <string>

#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {

namespace {

bool is_between(char32_t code, char32_t first, char32_t last) {
  return code >= first && code <= last;
}

bool is_latin_1(char32_t code) { return is_between(code, 0xC0, 0xFF) && code != 0xDF; }
bool is_cyrillic(char32_t code) { return is_between(code, 0x410, 0x44F); }

// Of the letters that the list knows.
bool has_fold(char32_t code) {
  return is_between(code, 'A', 'Z') || is_between(code, 'a', 'z') || is_latin_1(code) ||
         is_cyrillic(code);
}
bool is_lower(char32_t code) {
  return is_between(code, 'a', 'z') || is_between(code, 0xE0, 0xFF) ||
         is_between(code, 0x430, 0x44F);
}

// Beside each lower case's own upper case: the letters of CaseFolding.txt, in Unicode 9 to 17.
struct OtherFold {
  char32_t folded, other;
};
constexpr OtherFold kOtherFolds[] = {{'k', 0x212A},   {'s', 0x17F},    {0xE5, 0x212B},
                                     {0xFF, 0x178},   {0x432, 0x1C80}, {0x434, 0x1C81},
                                     {0x43E, 0x1C82}, {0x441, 0x1C83}, {0x442, 0x1C84},
                                     {0x442, 0x1C85}, {0x44A, 0x1C86}};

}  // namespace

bool folds_alike(char32_t code) {
  using unicode_tables::Category;
  if (code < 0x80 || is_latin_1(code) || is_cyrillic(code)) return true;
  const auto category = static_cast<Category>(
      unicode_tables::value_at(unicode_tables::kClasses, code) & unicode_tables::kCategory);
  const bool is_sign = category >= Category::kPc && category <= Category::kSk;
  return is_sign || category == Category::kLo || category == Category::kNd ||
         category == Category::kZs;
}

std::vector<char32_t> same_fold(char32_t code) {
  const bool is_sign = code == 0xD7 || code == 0xF7;
  if (is_sign || !has_fold(code)) return {code};
  // Lower case lies 32 behind upper case; U+00FF alone has its upper case elsewhere.
  const char32_t lower = code == 0xFF || is_lower(code) ? code : code + 0x20;
  std::vector<char32_t> same = {lower};
  if (lower != 0xFF) same.push_back(lower - 0x20);
  for (const auto& [folded, other] : kOtherFolds)
    if (folded == lower) same.push_back(other);
  return same;
}

bool folds_to_one(char first, char second) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  const std::string pair = {lower(first), lower(second)};
  for (const char* known : {"ss", "ff", "fi", "fl", "st"})
    if (pair == known) return true;
  return false;
}

}  // namespace qlora::data
