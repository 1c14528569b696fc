#include "data/tokenizers/pattern_alphabet.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/utf8.h"

namespace qlora::data {
namespace {

constexpr char32_t kAscii = 0x80;
constexpr size_t kMostSymbols = PatternAlphabet::kLastSymbol + 1 - kAscii;

// Where characters beyond ASCII begin or end to be in a set, in order.
std::vector<std::pair<char32_t, size_t>> edges_of(std::span<const CodeSet> sets) {
  std::vector<std::pair<char32_t, size_t>> edges;
  for (size_t number = 0; number < sets.size(); ++number) {
    for (const auto& [first, last] : sets[number].ranges()) {
      if (last < kAscii) continue;
      edges.emplace_back(std::max(first, kAscii), number);
      if (last < CodeSet::kLast) edges.emplace_back(last + 1, number);
    }
  }
  std::ranges::sort(edges);
  return edges;
}

}  // namespace

std::optional<PatternAlphabet> PatternAlphabet::of(std::span<const CodeSet> sets) {
  PatternAlphabet alphabet;
  alphabet.pages_.resize((CodeSet::kLast + 1) / kPage);
  const auto edges = edges_of(sets);
  std::map<std::string, uint8_t> symbols;  // by the sets that have them
  std::string in_sets(sets.size(), '\0');  // of the characters from `begin` on
  char32_t begin = kAscii;
  for (size_t edge = 0; begin <= CodeSet::kLast;) {
    for (; edge < edges.size() && edges[edge].first == begin; ++edge)
      in_sets[edges[edge].second] ^= '\1';
    const char32_t end = edge < edges.size() ? edges[edge].first : CodeSet::kLast + 1;
    auto symbol = symbols.find(in_sets);
    if (symbol == symbols.end()) {
      if (symbols.size() == kMostSymbols) return std::nullopt;
      symbol = symbols.emplace(in_sets, static_cast<uint8_t>(kAscii + symbols.size())).first;
      alphabet.examples_.push_back(begin);
    }
    alphabet.fill(begin, end - 1, symbol->second);
    begin = end;
  }
  return alphabet;
}

// What is filled follows on what was filled before.
void PatternAlphabet::fill(char32_t first, char32_t last, uint8_t symbol) {
  std::optional<uint16_t> uniform;  // one table for all pages that have this symbol alone
  for (char32_t code = first; code <= last;) {
    const size_t page = code / kPage, place = code % kPage;
    const size_t count = std::min<size_t>(kPage - place, last + 1 - code);
    if (place == 0 && count == kPage && uniform) {
      pages_[page] = *uniform;
    } else {
      if (place == 0 || tables_.empty()) tables_.emplace_back();
      pages_[page] = static_cast<uint16_t>(tables_.size() - 1);
      std::fill_n(tables_.back().begin() + static_cast<ptrdiff_t>(place), count, symbol);
      if (place == 0 && count == kPage) uniform = pages_[page];
    }
    code += static_cast<char32_t>(count);
  }
}

CodeSet PatternAlphabet::symbols_of(const CodeSet& set) const {
  std::vector<CodeSet::Range> found;
  for (char32_t symbol = 0; symbol < kAscii + examples_.size(); ++symbol) {
    const char32_t example = symbol < kAscii ? symbol : examples_[symbol - kAscii];
    if (set.contains(example)) found.push_back({symbol, symbol});
  }
  return CodeSet(std::move(found));
}

std::optional<std::string> PatternAlphabet::symbols(std::string_view text) const {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < kAscii; };
  const auto first = std::ranges::find_if_not(text, is_ascii);
  if (first == text.end()) return std::nullopt;
  std::string symbols(text.size(), '\0');
  char* out = std::copy(text.begin(), first, symbols.data());
  for (auto index = static_cast<size_t>(first - text.begin()); index < text.size();) {
    if (is_ascii(text[index])) {
      *out++ = text[index++];
    } else {
      const char32_t code = next_code_point(text, index);
      *out++ = static_cast<char>(tables_[pages_[code / kPage]][code % kPage]);
    }
  }
  symbols.resize(static_cast<size_t>(out - symbols.data()));
  return symbols;
}

}  // namespace qlora::data
