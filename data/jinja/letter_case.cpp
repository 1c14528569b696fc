#include "data/jinja/letter_case.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "data/jinja/text.h"
#include "data/tokenizers/utf8.h"

namespace qlora::data::jinja {
namespace {

utf8proc_category_t category_of(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

// Characters whose capital is more than one (Unicode's SpecialCasing.txt, without conditions);
// Greek with iota subscript is left out.
struct LongCapital {
  char32_t code;
  std::string_view upper, title;
};
constexpr std::array<LongCapital, 20> kLongCapitals = {{
    {0x00DF, "SS", "Ss"},
    {0x0149, "\u02BCN", "\u02BCN"},
    {0x01F0, "J\u030C", "J\u030C"},
    {0x0390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x03B0, "\u03A5\u0308\u0301", "\u03A5\u0308\u0301"},
    {0x0587, "\u0535\u0552", "\u0535\u0582"},
    {0x1E96, "H\u0331", "H\u0331"},
    {0x1E97, "T\u0308", "T\u0308"},
    {0x1E98, "W\u030A", "W\u030A"},
    {0x1E99, "Y\u030A", "Y\u030A"},
    {0x1E9A, "A\u02BE", "A\u02BE"},
    {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},
    {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},
    {0xFB13, "\u0544\u0546", "\u0544\u0576"},
    {0xFB14, "\u0544\u0535", "\u0544\u0565"},
}};

const LongCapital* find_long_capital(char32_t code) {
  const auto* found = std::find_if(kLongCapitals.begin(), kLongCapitals.end(),
                                   [&](const LongCapital& one) { return one.code == code; });
  return found == kLongCapitals.end() ? nullptr : found;
}

void append_upper(char32_t code, std::string& out) {
  if (const LongCapital* capital = find_long_capital(code)) {
    out += capital->upper;
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))), out);
  }
}

void append_title(char32_t code, std::string& out) {
  if (const LongCapital* capital = find_long_capital(code)) {
    out += capital->title;
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code))), out);
  }
}

bool is_case_ignorable(char32_t code) {
  switch (category_of(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::u32string_view(U"'.:\u00B7\u2018\u2019\u2024\u2027").find(code) !=
             std::u32string_view::npos;
  }
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
  const char32_t code = text[at];
  if (code == 0x3A3) {
    append_utf8(is_final_sigma(text, at) ? 0x3C2 : 0x3C3, out);
  } else if (code == 0x130) {
    out += "i\u0307";
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))), out);
  }
}

}  // namespace

bool is_upper(char32_t code) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(code)) != 0; }

bool is_lower(char32_t code) { return utf8proc_islower(static_cast<utf8proc_int32_t>(code)) != 0; }

bool is_cased(char32_t code) {
  return is_upper(code) || is_lower(code) || category_of(code) == UTF8PROC_CATEGORY_LT;
}

bool is_alphabetic(char32_t code) {
  const utf8proc_category_t category = category_of(code);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t code) {
  constexpr std::u32string_view kOther = U"\u00B2\u00B3\u00B9\u2070";
  return category_of(code) == UTF8PROC_CATEGORY_ND ||
         kOther.find(code) != std::u32string_view::npos || (code >= 0x2074 && code <= 0x2079) ||
         (code >= 0x2080 && code <= 0x2089) || (code >= 0x2460 && code <= 0x2468);
}

std::string upper_case(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) append_upper(next_code_point(text, i), result);
  return result;
}

std::string lower_case(std::string_view text) {
  const std::u32string code_points = to_code_points(text);
  std::string result;
  for (size_t i = 0; i < code_points.size(); ++i) append_lower(code_points, i, result);
  return result;
}

std::string capitalize(std::string_view text) {
  const std::u32string code_points = to_code_points(text);
  std::string result;
  for (size_t i = 0; i < code_points.size(); ++i) {
    if (i == 0) {
      append_title(code_points[0], result);
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
      append_title(code_points[i], result);
    }
    behind_letter = is_cased(code_points[i]);
  }
  return result;
}

}  // namespace qlora::data::jinja
