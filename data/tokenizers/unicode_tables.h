// What the package `tokenizers` 0.23.3 knows of each code point, put to it one by one by
// scripts/unicode_tables.py, so that ids do not depend on the Unicode of installed libraries. Its
// parts carry tables of different age, and so do these:
//
//   kClasses, kScripts              Unicode 16.0 (Oniguruma and the crate regex)
//   kNumbers, kLower                17.0 (the standard library of Rust)
//   kPunctuation                    8.0 (the crate unicode_categories)
//   kCanonical, kCompatible,
//   kCombiningClasses, kComposed    9.0 (the crate unicode-normalization-alignments)
//
// tests/interop/unicode.py compares the program with the package over all code points.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

namespace qlora::data::unicode_tables {

// A value for the code points from `first` up to the next run's.
struct Run {
  char32_t first;
  uint8_t value;
};

inline uint8_t value_at(std::span<const Run> runs, char32_t code) {
  const auto behind = std::upper_bound(runs.begin(), runs.end(), code,
                                       [](char32_t c, const Run& run) { return c < run.first; });
  return std::prev(behind)->value;  // the first run begins at 0
}

// Where the text of a code point stands in the pool.
struct Place {
  char32_t code;
  uint16_t begin, length;
};

struct Texts {
  std::span<const char32_t> pool;
  std::span<const Place> places;  // by code

  // Empty: the code point stands for itself.
  std::u32string_view find(char32_t code) const {
    const auto place = std::lower_bound(places.begin(), places.end(), code,
                                        [](const Place& p, char32_t c) { return p.code < c; });
    if (place == places.end() || place->code != code) return {};
    return {pool.data() + place->begin, place->length};
  }
};

struct ScriptName {
  std::string_view name, alias;  // "Katakana", "Kana"
};

struct Pair {
  char32_t first, second, both;
};

// The general categories in the order that kClasses numbers them in.
enum class Category : uint8_t {
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCo,
  kCn
};
// Beside the category, in a bit above it: property Alphabetic.
constexpr uint8_t kCategory = 0x1F, kAlphabetic = 0x20;

extern const std::span<const Run> kClasses;
extern const std::span<const Run> kScripts;  // property Script, an index into kScriptNames
extern const std::span<const ScriptName> kScriptNames;
extern const std::span<const Run> kNumbers, kPunctuation;  // 0 or 1
extern const std::span<const Run> kCombiningClasses;       // Canonical_Combining_Class
// Full decompositions without Hangul; kCompatible has those that differ from the canonical ones.
extern const Texts kCanonical, kCompatible;
extern const std::span<const Pair> kComposed;  // primary composites without Hangul, by pair
extern const Texts kLower;                     // of a code point by itself

}  // namespace qlora::data::unicode_tables
