// Texts as a regular expression sees them: characters that none of its sets tells apart are one
// symbol of a byte. So a set is a table of bits, however many ranges of characters it has, and
// nothing of a match is left to the engine's own tables.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/code_set.h"

namespace qlora::data {

class PatternAlphabet {
 public:
  static constexpr char32_t kLastSymbol = 0xFF;

  // ASCII is itself. Nothing: the sets tell more kinds of characters apart than there are symbols.
  static std::optional<PatternAlphabet> of(std::span<const CodeSet> sets);

  // The symbols of a set, one of those that this was made of.
  CodeSet symbols_of(const CodeSet& set) const;

  // A symbol for each character of `text` (valid UTF-8); nothing: `text` is ASCII, and so itself.
  std::optional<std::string> symbols(std::string_view text) const;

 private:
  static constexpr size_t kPage = 256;  // code points

  PatternAlphabet() = default;
  void fill(char32_t first, char32_t last, uint8_t symbol);

  std::vector<char32_t> examples_;  // a character of each symbol from 0x80 on
  std::vector<uint16_t> pages_;     // of all code points, an index into tables_
  std::vector<std::array<uint8_t, kPage>> tables_;
};

}  // namespace qlora::data
