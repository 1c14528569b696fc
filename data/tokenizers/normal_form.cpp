// Normal forms: decompose, order the marks, compose (Unicode Standard Annex 15, sections 1.3 and
// 9).
#include <algorithm>
#include <optional>

#include "base/utf8.h"
#include "data/tokenizers/unicode.h"
#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {
namespace {

using unicode_tables::Pair;

// Hangul syllables are composed by arithmetic (Unicode Standard, section 3.12).
constexpr char32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kNumLeading = 19, kNumVowels = 21, kNumTrailing = 28;
constexpr char32_t kNumSyllables = kNumLeading * kNumVowels * kNumTrailing;

bool is_composed(NormalForm form) { return form == NormalForm::kNfc || form == NormalForm::kNfkc; }
bool is_compatible(NormalForm form) {
  return form == NormalForm::kNfkc || form == NormalForm::kNfkd;
}

// True when no character can change: below U+0300 nothing composes, in ASCII nothing decomposes.
bool is_certainly_normal(std::string_view text, NormalForm form) {
  const unsigned char first_doubtful = form == NormalForm::kNfc ? 0xCC : 0x80;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return static_cast<unsigned char>(c) < first_doubtful; });
}

uint8_t combining_class(char32_t code) {
  return code < 0x300 ? 0 : unicode_tables::value_at(unicode_tables::kCombiningClasses, code);
}

void append_decomposed(char32_t code, bool compatible, std::u32string& out) {
  if (code >= kSyllables && code < kSyllables + kNumSyllables) {
    const char32_t index = code - kSyllables;
    out += kLeading + index / (kNumVowels * kNumTrailing);
    out += kVowels + index / kNumTrailing % kNumVowels;
    if (index % kNumTrailing != 0) out += kTrailing + index % kNumTrailing;
    return;
  }
  std::u32string_view parts;
  if (compatible) parts = unicode_tables::kCompatible.find(code);
  if (parts.empty()) parts = unicode_tables::kCanonical.find(code);
  if (parts.empty()) {
    out += code;
  } else {
    out += parts;
  }
}

// Marks behind a starter by their class, equal ones as they stood.
void order_marks(std::u32string& codes) {
  for (size_t begin = 0; begin < codes.size();) {
    if (combining_class(codes[begin]) == 0) {
      ++begin;
      continue;
    }
    size_t end = begin + 1;
    while (end < codes.size() && combining_class(codes[end]) != 0) ++end;
    std::stable_sort(codes.begin() + static_cast<std::ptrdiff_t>(begin),
                     codes.begin() + static_cast<std::ptrdiff_t>(end), [](char32_t a, char32_t b) {
                       return combining_class(a) < combining_class(b);
                     });
    begin = end;
  }
}

std::optional<char32_t> composite(char32_t first, char32_t second) {
  if (first >= kLeading && first < kLeading + kNumLeading && second >= kVowels &&
      second < kVowels + kNumVowels) {
    return kSyllables + ((first - kLeading) * kNumVowels + (second - kVowels)) * kNumTrailing;
  }
  const bool lacks_trailing = first >= kSyllables && first < kSyllables + kNumSyllables &&
                              (first - kSyllables) % kNumTrailing == 0;
  if (lacks_trailing && second > kTrailing && second < kTrailing + kNumTrailing) {
    return first + (second - kTrailing);
  }
  const auto pairs = unicode_tables::kComposed;
  const auto pair = std::lower_bound(pairs.begin(), pairs.end(), std::pair(first, second),
                                     [](const Pair& a, const std::pair<char32_t, char32_t>& b) {
                                       return std::pair(a.first, a.second) < b;
                                     });
  if (pair == pairs.end() || pair->first != first || pair->second != second) return std::nullopt;
  return pair->both;
}

std::u32string composed(const std::u32string& codes) {
  std::u32string out;
  std::optional<size_t> starter;  // in out
  uint8_t last_class = 0;         // of what stands last behind the starter
  for (const char32_t code : codes) {
    const uint8_t own_class = combining_class(code);
    const bool is_next = starter && *starter + 1 == out.size();
    const bool is_blocked = !is_next && last_class >= own_class;
    const auto both = starter && !is_blocked ? composite(out[*starter], code) : std::nullopt;
    if (both) {
      out[*starter] = *both;
      continue;
    }
    if (own_class == 0) starter = out.size();
    last_class = own_class;
    out += code;
  }
  return out;
}

}  // namespace

std::string to_normal_form(std::string_view text, NormalForm form) {
  if (is_certainly_normal(text, form)) return std::string(text);
  std::u32string codes;
  codes.reserve(text.size());
  for (size_t index = 0; index < text.size();) {
    append_decomposed(next_code_point(text, index), is_compatible(form), codes);
  }
  order_marks(codes);
  if (is_composed(form)) codes = composed(codes);
  std::string out;
  out.reserve(text.size());
  for (const char32_t code : codes) append_utf8(code, out);
  return out;
}

}  // namespace qlora::data
