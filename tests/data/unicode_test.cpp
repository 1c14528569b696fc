// Characters that the libraries of older and newer distributions disagree about.
#include "data/tokenizers/unicode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/tokenizers/regex.h"
#include "data/tokenizers/text_pattern.h"
#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {
namespace {

// The parts of a text that a pattern takes.
std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<Part> parts;
  TextPattern(Regex(pattern)).find_parts(text, parts);
  std::vector<std::string> found;
  for (const Part& part : parts) {
    if (part.is_delimiter)
      found.push_back(text.substr(part.span.begin, part.span.end - part.span.begin));
  }
  return found;
}

using Texts = std::vector<std::string>;

TEST(Regex, LettersOfUnicode16AreLettersWhicheverPcre2IsInstalled) {
  // Garay, Todhri and Latin letters of 2024; Vithkuqi of 2021
  EXPECT_EQ(matches("\\p{L}+", "a\U00010D50\U000105C0\uA7DA\U00010570 b"),
            (Texts{"a\U00010D50\U000105C0\uA7DA\U00010570", "b"}));
  EXPECT_EQ(matches("\\p{Lu}+", "\U00010D50\U00010D70\uA7DA\uA7DB"),
            (Texts{"\U00010D50", "\uA7DA"}));
  EXPECT_EQ(matches("\\p{N}+", "\U00010D40x\U0001CCF0"), (Texts{"\U00010D40", "\U0001CCF0"}));
}

TEST(Regex, NewEmojiAreSymbolsAndUnassignedOnesAreNothing) {
  EXPECT_EQ(matches("\\p{So}+", "\U0001F970\U0001FAE9"), (Texts{"\U0001F970\U0001FAE9"}));
  EXPECT_EQ(matches("\\p{Cn}", "\U00010940\U000323B0"), (Texts{"\U00010940", "\U000323B0"}));
  EXPECT_EQ(matches("\\p{L}", "\U00010940\U000323B0"), Texts{});
}

TEST(Regex, ScriptsAreThoseOfUnicode16WhicheverPcre2IsInstalled) {
  // Letters of 2022 among older ones; a sign that both kana share belongs to neither.
  EXPECT_EQ(matches("\\p{Katakana}+", "\u30A2\U0001B155\U0001B000\u30FC\u3042"),
            (Texts{"\u30A2\U0001B155\U0001B000"}));
  EXPECT_EQ(matches("\\p{Hiragana}+", "\u3042\U0001B132\u30A2"), (Texts{"\u3042\U0001B132"}));
  EXPECT_EQ(matches("\\p{Han}+", "\u4E00\U00031350\U000323AF\u3042"),
            (Texts{"\u4E00\U00031350\U000323AF"}));
  EXPECT_EQ(matches("\\p{Latin}+", "a\uA7DA\u03B1"), (Texts{"a\uA7DA"}));
  EXPECT_EQ(matches("\\p{Garay}+", "\U00010D50a"), (Texts{"\U00010D50"}));  // a script of 2024
  // They are letters all the same.
  EXPECT_EQ(matches("\\p{Katakana}+|\\p{L}+", "\U0001B155\U0001B132"),
            (Texts{"\U0001B155", "\U0001B132"}));
}

TEST(Regex, AScriptMayBeNegatedWhereverItStandsAndSpelledLoosely) {
  const std::string text = "\u30A2\U0001B155\u0E01a";
  for (const char* pattern : {"\\P{Katakana}+", "\\p{^Katakana}+", "[^\\p{Katakana}]+",
                              "[\\P{Katakana}]+", "\\P{Kana}+", "\\P{kata-kana}+"})
    EXPECT_EQ(matches(pattern, text), (Texts{"\u0E01a"})) << pattern;
  EXPECT_EQ(matches("[\\p{Thai}\\p{Katakana}]+", text), (Texts{"\u30A2\U0001B155\u0E01"}));
  EXPECT_EQ(matches("[\\P{Katakana}\u30A2]+", text), (Texts{"\u30A2", "\u0E01a"}));
  EXPECT_THROW(Regex("\\p{Klingon}"), FormatError);
}

TEST(Regex, PosixClassesAreOnigurumasWhicheverPcre2IsInstalled) {
  // A letter and a digit of 2024, a combining mark, a sign and an emoji of 2024, a letter in a
  // circle, a half.
  const std::string text = "a\U00010D50\U00010D40\u0301+\U0001FAE9\u24B6\u00BD\u3000\t";
  const std::string letters = "a\U00010D50";
  const auto found = [&](const std::string& name) { return matches("[[:" + name + ":]]+", text); };
  EXPECT_EQ(found("alpha"), (Texts{letters, "\u24B6"}));
  EXPECT_EQ(found("alnum"), (Texts{letters + "\U00010D40", "\u24B6"}));
  EXPECT_EQ(found("word"), (Texts{letters + "\U00010D40\u0301", "\u24B6"}));
  EXPECT_EQ(found("punct"), (Texts{"+\U0001FAE9\u24B6"}));  // a circled letter is a symbol, too
  EXPECT_EQ(found("upper"), (Texts{"\U00010D50", "\u24B6"}));
  EXPECT_EQ(found("graph"), (Texts{text.substr(0, text.size() - 4)}));
  EXPECT_EQ(found("print"), (Texts{text.substr(0, text.size() - 1)}));
  EXPECT_EQ(found("space"), (Texts{"\u3000\t"}));
  EXPECT_EQ(found("blank"), (Texts{"\u3000\t"}));
  EXPECT_EQ(found("cntrl"), (Texts{"\t"}));
  EXPECT_EQ(found("digit"), (Texts{"\U00010D40"}));
  EXPECT_EQ(found("xdigit"), (Texts{"a"}));
  EXPECT_EQ(found("^graph"), (Texts{"\u3000\t"}));
}

TEST(Regex, NamedSetsMayBeNegatedAndStandBesideOthers) {
  const std::string text = "a1+ \u0301";
  EXPECT_EQ(matches("[^[:alpha:]\\s]+", text), (Texts{"1+", "\u0301"}));
  EXPECT_EQ(matches("[[:^alnum:]]+", text), (Texts{"+ \u0301"}));
  EXPECT_EQ(matches("[[:digit:][:blank:]+]+", text), (Texts{"1+ "}));
  EXPECT_EQ(matches("\\P{Alnum}+|\\p{^Space}", text), (Texts{"a", "1", "+ \u0301"}));
  EXPECT_EQ(matches("\\p{Letter}|\\p{Punct}", text), (Texts{"a"}));  // the property: no symbols
  EXPECT_EQ(matches("[\\W]+", text), (Texts{"+ "}));
}

TEST(Regex, ABraceIsAnIntervalOnlyWhereOnigurumaReadsOne) {
  EXPECT_EQ(matches("ab{,3}", "abbbbab a"), (Texts{"abbb", "ab", "a"}));
  EXPECT_EQ(matches("ab{,3}?", "abb"), (Texts{"a"}));
  EXPECT_EQ(matches("b{, 3}", "bbb b{, 3}"), (Texts{"b{, 3}"}));
  EXPECT_EQ(matches("b{1, 3}", "bbb"), Texts{});
  EXPECT_EQ(matches("b{,}", "bb b{,}"), (Texts{"b{,}"}));
  EXPECT_EQ(matches("b{2,3}?", "bbbbb"), (Texts{"bb", "bb"}));
}

TEST(Regex, EscapesAndOptionsMeanWhatOnigurumaReads) {
  EXPECT_EQ(matches("\\v", "\n\v\f\u2028"), (Texts{"\v"}));
  EXPECT_EQ(matches("a.", "a\nab"), (Texts{"ab"}));
  EXPECT_EQ(matches("(?m:a.)", "a\nab"), (Texts{"a\n", "ab"}));
  EXPECT_EQ(matches("(?m)a(?-m:.)", "a\nab"), (Texts{"ab"}));
  EXPECT_EQ(matches("\\R", "\r\n\u2028a\u0085"), (Texts{"\r\n", "\u2028", "\u0085"}));
  EXPECT_EQ(matches("[\\u0041-\\u0043]+", "xABCD"), (Texts{"ABC"}));
  EXPECT_EQ(matches("[[a-]z]+", "a-bz"), (Texts{"a-", "z"}));
  EXPECT_EQ(matches("[[ab]-z]+", "a-cz"), (Texts{"a-", "z"}));
}

TEST(Regex, WithoutRegardToCaseOnlySetsThatFoldAlikeAreTaken) {
  EXPECT_EQ(matches("(?i:'s|'ll|[k-m])", "'S'Ll\u212A"), (Texts{"'S", "'Ll", "\u212A"}));
  EXPECT_EQ(matches("(?i:[^s])+|(?i)\u00E5", "\u017FaSb\u212B"), (Texts{"a", "b\u212B"}));
  EXPECT_EQ(matches("(?i:\u00FF+)", "\u0178\u00FF\u00DF"), (Texts{"\u0178\u00FF"}));
  EXPECT_EQ(matches("(?i:\u0432[\u0442])", "\u1C80\u1C85\u0412\u0422"),
            (Texts{"\u1C80\u1C85", "\u0412\u0422"}));
  EXPECT_EQ(matches("(?i:\u00D7)", "\u00D7\u00F7"), (Texts{"\u00D7"}));  // signs
  EXPECT_EQ(matches("(?i:\\p{Lu})+", "aBC\u2160"), (Texts{"BC"}));       // no property is folded
  EXPECT_EQ(matches("(?i:\u00E9\u0434)", "\u00C9\u0414"), (Texts{"\u00C9\u0414"}));
}

std::string refusal_of(const std::string& pattern) {
  try {
    Regex(pattern, "tokenizer.json");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

TEST(Regex, WhatMayMeanSomethingElseIsRefusedByName) {
  const std::pair<const char*, const char*> refusals[] = {
      {"[[:lower:]]", "the POSIX class [:lower:] at offset 1"},
      {"[[:foo:]]", "the POSIX class [:foo:]"},
      {"\\p{Emoji}", "the property \\p{Emoji} at offset 0"},
      {"[a\\P{^Extended_Pictographic}]", "the property \\P{^Extended_Pictographic}"},
      {"\\p{Lowercase}", "the property"},
      {"\\p{Ideographic}", "the property"},
      {"\\pL", "a \\p without {...}"},
      {"a\\X", "\\X at offset 1"},
      {"\\Qa\\E", "\\Q at offset 0"},
      {"[\\R]", "\\R inside a class"},
      {"a\\Kb", "\\K"},
      {"\\xE9", "a code that is no character's"},
      {"b{2}?", "a '?' behind an interval of one number at offset 1"},
      {"b{2,}+", "a '+' behind an interval"},
      {"b{2}{2}", "a quantifier behind a quantifier"},
      {"a(?i)b|c", "an option that stands inside a sequence at offset 1"},
      {"(?x: a)", "a group that begins with '(?x'"},
      {"(*ACCEPT)", "a group that begins with '(*'"},
      {"(?i:\u03C3)", "U+03C3 without regard to case"},
      {"(?i:\\x{264})", "U+0264 without regard to case"},
      {"(?i:ss)", "a pair of letters"},
      {"(?i:[\\p{L}])", "\\p{L} in a class, without regard to case,"},
      {"[a&&b]", "an intersection of classes"}};
  for (const auto& [pattern, what] : refusals) {
    EXPECT_THAT(refusal_of(pattern), testing::HasSubstr(std::string("tokenizer.json: ") + what))
        << pattern;
    EXPECT_THAT(refusal_of(pattern), testing::HasSubstr("is not supported")) << pattern;
  }
}

// The property in front is many ranges in the translation.
TEST(Regex, WhatPcre2RefusesIsQuotedFromThePatternAsItWasWritten) {
  const std::string much = "\\p{Lu}\\w[\\s\\p{Han}x]|";
  // From behind the 21 bytes of `much`; versions of PCRE2 point at different places of a range.
  EXPECT_THAT(refusal_of(much + "[z-a]{3}"),
              testing::AllOf(testing::ContainsRegex("out of order .* at offset 2[2-5] of '"),
                             testing::HasSubstr("'" + much + "[z-a]{3}'")));
  std::string longer;
  for (int i = 0; i < 50; ++i) longer += much;
  const std::string said = refusal_of(longer + "a{5,2}" + longer);
  EXPECT_THAT(said, testing::HasSubstr("...")) << said;
  EXPECT_THAT(said, testing::HasSubstr("a{5,2}")) << said;
  EXPECT_LT(said.size(), 220u) << said;
  EXPECT_THAT(refusal_of(longer + "(a"), testing::EndsWith("(a'"));
}

TEST(Regex, ARefusalQuotesAPartOfALongPattern) {
  const std::string said = refusal_of(std::string(5000, 'a') + "\\X" + std::string(5000, 'b'));
  EXPECT_THAT(said, testing::HasSubstr("\\X at offset 5000 of the pattern '...aaa"));
  EXPECT_THAT(said, testing::HasSubstr("a\\Xb"));
  EXPECT_LT(said.size(), 220u);
  EXPECT_LT(refusal_of("[[:" + std::string(5000, 'a') + ":]]").size(), 320u);
}

TEST(Regex, PatternsThatAreInUseAreTaken) {
  for (
      const char* pattern :
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+)",
       R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s+)",
       "[一-龥぀-ゟ゠-ヿ]+", R"([\p{P}\$\+<=>\^~\|`]+)", R"( ?[^(\s|.,!?…。，、।۔،)]+)"})
    EXPECT_EQ(refusal_of(pattern), "");
}

// Of different versions of Unicode: a letter in some that was none, letters of different kinds.
TEST(Regex, CharactersThatLaterVersionsChangeAreThoseOfUnicode16) {
  EXPECT_EQ(matches("\\p{L}+", "a\u0558b"), (Texts{"a", "b"}));
  EXPECT_EQ(matches("\\p{M}+", "\u05C7\u05C8"), (Texts{"\u05C7"}));
  EXPECT_EQ(matches("[\\p{Lu}\\p{Lo}]+", "B\u0295c"), (Texts{"B"}));
  EXPECT_EQ(matches("\\p{Ll}+", "B\u0295c"), (Texts{"\u0295c"}));
}

TEST(Regex, AReferenceIsToTheCharactersThemselves) {
  // Emoji of 2024 and 2022, then letters: of one kind, and not the same.
  EXPECT_EQ(matches("(.)\\1", "x\U0001FAE9\U0001FADC\U0001FADC"), (Texts{"\U0001FADC\U0001FADC"}));
  EXPECT_EQ(matches("(\\p{Han}+)\\p{P}\\1", "漢字，漢字。字漢"), (Texts{"漢字，漢字"}));
  EXPECT_EQ(matches("([[:alpha:]])\\1", "aéèéé\u0558\u0558"), (Texts{"éé"}));
}

TEST(Regex, ALazyQuantifierInAnAtomicGroupIsFoundWhereverItMatches) {
  EXPECT_EQ(matches("(?>a+?)b", "xaab"), (Texts{"ab"}));
  EXPECT_EQ(matches("(?>.a+?)b", "xaab"), (Texts{"aab"}));
}

TEST(Regex, ABracketThatBeginsAnInnerClassMayBeginARange) {
  EXPECT_EQ(matches("[x[]-a]]+", "[]^_`abx-"), (Texts{"]^_`a", "x"}));
  EXPECT_EQ(matches("[x[-]a]+", "[]a-x"), (Texts{"a-x"}));
}

TEST(Regex, ANameOfAGroupIsAWord) {
  EXPECT_EQ(matches("(?<größe>a)(?<b2>b)", "abb"), (Texts{"ab"}));
  for (const char* pattern : {"(?<>a)", "(?<1>a)", "(?<a-b>a)", "(?<a", "(?<a)>"})
    EXPECT_THAT(refusal_of(pattern), testing::HasSubstr("a group has no name")) << pattern;
}

TEST(Regex, AQuantifierNeedsSomethingInFrontOfIt) {
  for (const char* pattern : {"*a", "a|+", "(?:?a)", "(?i)*", "((?i)?:a)", "({2}a)"})
    EXPECT_THAT(refusal_of(pattern), testing::HasSubstr("a quantifier has nothing in front of it"))
        << pattern;
}

TEST(Regex, ACharacterThatAPatternNamesIsItself) {
  EXPECT_EQ(matches("\U0001F970", "\U0001F970\U0001FAE9\U0001F973"), (Texts{"\U0001F970"}));
  // An Arabic letter of 2021 lies in the range, one of the Mende's does not.
  EXPECT_EQ(matches("[ࠀ-一]+", "\u0870\uA7DA\u0889"), (Texts{"\u0870", "\u0889"}));
  EXPECT_EQ(matches("[\\x{1F970}-\\x{1F972}]", "\U0001F970\U0001F976"), (Texts{"\U0001F970"}));
}

TEST(NormalForm, FollowsTheAnnexWithTheTablesOfTokenizers) {
  EXPECT_EQ(to_normal_form("e\u0301 \u00c5 \uac00", NormalForm::kNfd),
            "e\u0301 A\u030a \u1100\u1161");
  EXPECT_EQ(to_normal_form("e\u0301 A\u030a \u1112\u1161\u11ab", NormalForm::kNfc),
            "\u00e9 \u00c5 \ud55c");
  EXPECT_EQ(to_normal_form("ﬁ ① Å", NormalForm::kNfkc), "fi 1 Å");
  EXPECT_EQ(to_normal_form("ﬁ ½", NormalForm::kNfkd), "fi 1\u20442");
  // marks by their class: cedilla (202) in front of acute (230); the blocked one does not compose
  EXPECT_EQ(to_normal_form("c\u0301\u0327", NormalForm::kNfd), "c\u0327\u0301");
  EXPECT_EQ(to_normal_form("a\u0305\u0301", NormalForm::kNfc), "a\u0305\u0301");
  EXPECT_EQ(to_normal_form("a\u0323\u0302", NormalForm::kNfc), "\u1ead");
  // excluded from composition; later than the package's tables: a circled letter of 2018
  EXPECT_EQ(to_normal_form("\u0958", NormalForm::kNfc), "\u0915\u093c");
  EXPECT_EQ(to_normal_form("\U0001F12F", NormalForm::kNfkc), "\U0001F12F");
}

TEST(UnicodeTables, AClassIsACategoryAndWhetherItIsAlphabetic) {
  using namespace unicode_tables;
  size_t wrong = 0;
  for (size_t run = 0; run < kClasses.size(); ++run) {
    const uint8_t value = kClasses[run].value;
    const auto category = static_cast<Category>(value & kCategory);
    wrong += (value & ~(kCategory | kAlphabetic)) != 0 || category > Category::kCn;
    wrong += run > 0 && kClasses[run - 1].value == value;
  }
  EXPECT_EQ(wrong, 0u);
}

TEST(Unicode, ClassesOfCharacters) {
  EXPECT_TRUE(is_number(U'\u00bd'));
  EXPECT_TRUE(is_number(0x11DE0));  // Unicode 17
  EXPECT_FALSE(is_number(U'四'));
  EXPECT_TRUE(is_punctuation(U'$'));  // every sign of ASCII
  EXPECT_FALSE(is_punctuation(U'\u20ac'));
  EXPECT_FALSE(is_punctuation(0x2E52));    // later than the package's tables
  EXPECT_TRUE(is_word_character(0x24B6));  // a letter in a circle
  EXPECT_TRUE(is_word_character(0x200D));
  EXPECT_FALSE(is_word_character(U'\u00b2'));
  EXPECT_EQ(to_lower_case("ÀİΑΣ\u1C90\U00016EA0"), "ài\u0307ασ\u10D0\U00016EBB");
}

}  // namespace
}  // namespace qlora::data
