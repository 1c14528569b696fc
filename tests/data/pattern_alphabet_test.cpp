// That matches are decided by the program's tables, and by nothing that a PCRE2 knows of Unicode.
#include "data/tokenizers/pattern_alphabet.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "base/utf8.h"
#include "data/tokenizers/regex.h"
#include "data/tokenizers/text_pattern.h"
#include "data/tokenizers/translated_pattern.h"

namespace qlora::data {
namespace {

// All notations that say something about characters, and patterns that are in use.
const std::vector<std::string>& patterns() {
  static const std::vector<std::string> all = {
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+)",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s+)",
      R"( ?[^(\s|.,!?…。，、।۔،)]+)",
      R"([一-龥぀-ゟ゠-ヿ]+)",
      R"(\p{Lu}\P{Lu}*|\p{^Letter}|\p{Z}|\p{Cn}+|\p{Punct})",
      R"([\p{Han}\p{Kana}]+|\P{Latin}|[^\p{Thai}\p{Lo}]+)",
      R"(\w+|\W|\d\D|\s\S|\h\H)",
      R"([\w\-.]+|[\W\d]|[\D\h]|[\s\S])",
      R"(\b.|.\B|\v|\R|\N|\O|^.|.$|\A.|.\z)",
      R"([[:alpha:]][[:^alnum:]]*|[[:punct:][:space:]]+|[^[:graph:]]|[[:word:]])",
      R"((?i:[k-s]+|é|д|[^\s\d])|(?i:s)t|(?m:.)x)",
      R"((?<=\p{L})\p{M}+|(?<!\p{N})\p{N}|(?=\p{S}).)",
      R"(\x{1F970}|\u3042|[\x{3041}-\x{3096}a-c]+|é+)",
      R"(\p{Alphabetic}+|\p{Cs}|\p{Any})"};
  return all;
}

using Spans = std::vector<std::pair<size_t, size_t>>;

Spans spans(const std::string& pattern, const std::string& text) {
  std::vector<Part> parts;
  TextPattern(Regex(pattern)).find_parts(text, parts);
  Spans found;
  for (const Part& part : parts)
    if (part.is_delimiter) found.emplace_back(part.span.begin, part.span.end);
  return found;
}

// It compares no text, but the parser cannot know: characters are themselves for PCRE2.
std::string with_characters(const std::string& pattern) { return pattern + "|(?!)(a)\\1"; }

TEST(ParsedPattern, HasNothingThatPcre2WouldAskItsTablesFor) {
  // Groups without options, quantifiers, ., ^, $, letters and digits, \x{..} of ASCII, \A, \z, \Z,
  // \r, \n and references.
  const std::regex harmless(
      R"((?:\((?:\?(?::|=|!|>|<=|<!))?|[)|*+?.^$]|\{[0-9,]+\}|[A-Za-z0-9]|\\x\{[0-7]?[0-9A-F]\}|\\[AzZrn1-9])*)");
  for (const std::string& pattern : patterns()) {
    const ParsedPattern parsed = parse_oniguruma(pattern, "pattern");
    for (const auto& step : parsed.steps)
      EXPECT_TRUE(std::regex_match(step.text, harmless)) << pattern << ": " << step.text;
    EXPECT_FALSE(parsed.sets.empty()) << pattern;
    EXPECT_TRUE(parse_oniguruma(with_characters(pattern), "pattern").compares_text) << pattern;
  }
}

TEST(PatternAlphabet, WhatNoSetTellsApartIsOneSymbol) {
  const std::vector<CodeSet> sets = {CodeSet({{'a', 'z'}, {0x3041, 0x3096}}), CodeSet(0x3042)};
  const auto alphabet = PatternAlphabet::of(sets);
  ASSERT_TRUE(alphabet);
  EXPECT_FALSE(alphabet->symbols("ASCII is itself"));
  const std::string symbols = alphabet->symbols("aあいう漢\U0001F970é!").value();
  ASSERT_EQ(symbols.size(), 8u);
  EXPECT_EQ(symbols.front(), 'a');
  EXPECT_EQ(symbols.back(), '!');
  EXPECT_NE(symbols[1], symbols[2]);
  EXPECT_EQ(symbols[2], symbols[3]);
  EXPECT_NE(symbols[3], symbols[4]);
  EXPECT_EQ(symbols[4], symbols[5]);
  EXPECT_EQ(symbols[4], symbols[6]);
  const auto has = [&](size_t set, size_t place) {
    return alphabet->symbols_of(sets[set]).contains(static_cast<unsigned char>(symbols[place]));
  };
  EXPECT_TRUE(has(0, 0) && has(0, 1) && has(0, 2) && !has(0, 4) && !has(0, 7));
  EXPECT_TRUE(!has(1, 0) && has(1, 1) && !has(1, 2) && !has(1, 4));
}

TEST(PatternAlphabet, EveryCharacterHasTheSymbolOfItsSets) {
  const std::vector<CodeSet> sets = {
      CodeSet({{0x7F, 0x80}, {0xFF, 0x100}, {0x1FF, 0x2FF}, {0x10FFFF, 0x10FFFF}}),
      CodeSet({{0x100, 0xFFFF}})};
  const auto alphabet = PatternAlphabet::of(sets);
  ASSERT_TRUE(alphabet);
  std::string text;
  std::vector<char32_t> codes;
  for (char32_t code = 0x80; code <= CodeSet::kLast; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    codes.push_back(code);
    append_utf8(code, text);
  }
  const std::string symbols = alphabet->symbols(text).value();
  ASSERT_EQ(symbols.size(), codes.size());
  for (const CodeSet& set : sets) {
    const CodeSet wanted = alphabet->symbols_of(set);
    size_t wrong = 0;
    for (size_t i = 0; i < codes.size(); ++i)
      wrong += wanted.contains(static_cast<unsigned char>(symbols[i])) != set.contains(codes[i]);
    EXPECT_EQ(wrong, 0u);
  }
}

TEST(PatternAlphabet, HasAnEnd) {
  std::vector<CodeSet> sets;
  for (char32_t code = 0x4E00; sets.size() < 127; ++code) sets.emplace_back(code);
  EXPECT_TRUE(PatternAlphabet::of(sets));
  sets.emplace_back(char32_t{0x3042});
  EXPECT_FALSE(PatternAlphabet::of(sets));
}

TEST(Regex, MatchesAreTheSameInSymbolsAndInCharacters) {
  std::string text;
  for (char32_t code = 1; code <= CodeSet::kLast; code += code < 0x3200 ? 1 : 61) {
    if (code >= 0xD800 && code < 0xE000) continue;
    append_utf8(code, text);
    if (code % 7 == 0) text += " a";
    if (code % 19 == 0) text += "\n\n  K's";
  }
  for (const std::string& pattern : patterns()) {
    const Spans in_symbols = spans(pattern, text);
    EXPECT_GT(in_symbols.size(), 10u) << pattern;
    EXPECT_EQ(in_symbols, spans(with_characters(pattern), text)) << pattern;
  }
}

TEST(Regex, APatternOfManyCharactersMatchesThem) {
  std::string pattern, text;
  for (char32_t code = 0x4E00; code < 0x4F00; ++code) {
    if (!pattern.empty()) pattern += '|';
    append_utf8(code, pattern);
    append_utf8(code, text);
  }
  EXPECT_EQ(spans(pattern, text + "a\u3042").size(), 256u);
  EXPECT_EQ(spans(pattern + "|\\p{L}", text + "a\u3042").size(), 258u);
}

TEST(Regex, OffsetsAreBytesOfTheText) {
  // of one, two, three and four bytes
  const std::string text = "aé漢\U0001F970é";
  EXPECT_EQ(spans("\\p{So}", text), (Spans{{6, 10}}));
  EXPECT_EQ(spans("(?<=é)", text), (Spans{{3, 3}, {12, 12}}));
  EXPECT_EQ(spans("", "é漢"), (Spans{{0, 0}, {2, 2}, {5, 5}}));
  EXPECT_EQ(spans("é$|^.", text), (Spans{{0, 1}, {10, 12}}));
}

}  // namespace
}  // namespace qlora::data
