// A regular expression as it was read and as it is compiled, and how an error about the one quotes
// the other.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizers/code_set.h"

namespace qlora::data {

// What PCRE2 is given.
struct TranslatedPattern {
  std::string text;
  // Where a step of the translation begins, in `text` and in the original, in order.
  std::vector<std::pair<size_t, size_t>> steps;

  // Where in the original the step begins that the byte at `offset` of `text` belongs to.
  size_t original(size_t offset) const;
};

// An Oniguruma pattern in PCRE2's notation, whose sets of characters are not spelled yet. All that
// depends on tables of characters is a set: properties, escapes such as \w, letters without regard
// to case, whatever is not ASCII. The text between the sets is ASCII and has none of these.
struct ParsedPattern {
  struct Step {
    size_t original;  // where the pattern has what it stands for
    std::string text;
    int set;  // of `sets`, behind the text; -1: none
  };
  std::vector<Step> steps;
  std::vector<CodeSet> sets;   // each once
  bool compares_text = false;  // \1: characters of the text with each other
  bool is_lazy = false;        // quantifiers that take as little as they can

  // `spell` gives the text of a set.
  TranslatedPattern translate(const std::function<std::string(const CodeSet&)>& spell) const;
};

// What an error message quotes of a pattern, in UTF-8, that may be kilobytes: some 60 bytes around
// the offset.
std::string quoted_pattern(std::string_view pattern, size_t offset);

// FormatError, as of `where`, for what is not supported; see regex.h.
ParsedPattern parse_oniguruma(std::string_view pattern, const std::string& where);

}  // namespace qlora::data
