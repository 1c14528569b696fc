#include "data/jinja/letter_case.h"

#include "base/utf8.h"
#include "data/jinja/python_text_tables.h"
#include "data/jinja/text.h"

namespace qlora::data::jinja {
namespace {

namespace tables = python_text_tables;

bool has(char32_t code, uint8_t properties) {
  return (unicode_tables::value_at(tables::kProperties, code) & properties) != 0;
}

void append_mapped(char32_t code, const unicode_tables::Texts& texts, std::string& out) {
  const std::u32string_view mapped = texts.find(code);
  if (mapped.empty()) append_utf8(code, out);
  for (const char32_t part : mapped) append_utf8(part, out);
}

bool is_case_ignorable(char32_t code) {
  return unicode_tables::value_at(tables::kCaseIgnorable, code) != 0;
}

// A sigma is written as a final one behind a letter and before none.
bool is_final_sigma(std::u32string_view text, size_t at) {
  size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

void append_lower(std::u32string_view text, size_t at, std::string& out) {
  if (text[at] == 0x3A3) {
    append_utf8(is_final_sigma(text, at) ? 0x3C2 : 0x3C3, out);
  } else {
    append_mapped(text[at], tables::kLower, out);
  }
}

}  // namespace

bool is_upper(char32_t code) { return has(code, tables::kUpperCase); }
bool is_lower(char32_t code) { return has(code, tables::kLowerCase); }
bool is_cased(char32_t code) {
  return has(code, tables::kUpperCase | tables::kLowerCase | tables::kTitleCase);
}
bool is_alphabetic(char32_t code) { return has(code, tables::kAlpha); }
bool is_decimal(char32_t code) { return has(code, tables::kDecimal); }
bool is_digit(char32_t code) { return has(code, tables::kDigit); }
bool is_numeric(char32_t code) { return has(code, tables::kNumeric); }
bool is_alphanumeric(char32_t code) {
  return has(code, tables::kAlpha | tables::kDecimal | tables::kDigit | tables::kNumeric);
}
bool is_printable(char32_t code) { return has(code, tables::kPrintable); }

std::string upper_case(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    append_mapped(next_code_point(text, i), tables::kUpper, result);
  }
  return result;
}

std::string lower_case(std::string_view text) {
  const std::u32string code_points = to_code_points(text);
  std::string result;
  for (size_t i = 0; i < code_points.size(); ++i) append_lower(code_points, i, result);
  return result;
}

std::string swap_case(std::string_view text) {
  const std::u32string code_points = to_code_points(text);
  std::string result;
  for (size_t i = 0; i < code_points.size(); ++i) {
    if (is_upper(code_points[i])) {
      append_lower(code_points, i, result);
    } else if (is_lower(code_points[i])) {
      append_mapped(code_points[i], tables::kUpper, result);
    } else {
      append_utf8(code_points[i], result);
    }
  }
  return result;
}

std::string capitalize(std::string_view text) {
  const std::u32string code_points = to_code_points(text);
  std::string result;
  for (size_t i = 0; i < code_points.size(); ++i) {
    if (i == 0) {
      append_mapped(code_points[0], tables::kTitle, result);
    } else {
      append_lower(code_points, i, result);
    }
  }
  return result;
}

std::string title_case(std::string_view text) {
  const std::u32string code_points = to_code_points(text);
  std::string result;
  bool behind_letter = false;
  for (size_t i = 0; i < code_points.size(); ++i) {
    if (behind_letter) {
      append_lower(code_points, i, result);
    } else {
      append_mapped(code_points[i], tables::kTitle, result);
    }
    behind_letter = is_cased(code_points[i]);
  }
  return result;
}

bool is_title(std::string_view text) {
  bool any = false, behind_letter = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t code = next_code_point(text, i);
    const bool is_big = has(code, tables::kUpperCase | tables::kTitleCase);
    if (is_big ? behind_letter : is_lower(code) && !behind_letter) return false;
    behind_letter = is_big || is_lower(code);
    any = any || behind_letter;
  }
  return any;
}

}  // namespace qlora::data::jinja
