// A regular expression as it was written and as it is compiled, and how an error about the one
// quotes the other.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qlora::data {

struct TranslatedPattern {
  std::string text;
  // Where a step of the translation begins, in `text` and in the original, in order.
  std::vector<std::pair<size_t, size_t>> steps;

  // Where in the original the step begins that the byte at `offset` of `text` belongs to.
  size_t original(size_t offset) const;
};

// What an error message quotes of a pattern, in UTF-8, that may be kilobytes: some 60 bytes around
// the offset.
std::string quoted_pattern(std::string_view pattern, size_t offset);

// The PCRE2 spelling of an Oniguruma pattern; see regex.h. FormatError, as of `where`.
TranslatedPattern translate_oniguruma(std::string_view pattern, const std::string& where);

}  // namespace qlora::data
