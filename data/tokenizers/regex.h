// Regular expressions of pre-tokenizers: written for Oniguruma, run by PCRE2 with its JIT.
//
// Both engines backtrack and take the leftmost, first alternative, so a translation of the
// notations that differ is exact:
//
//   \s \S       property White_Space
//   \w \W       letters, marks, digits, connectors
//   \p{Han}     property Script, not Script_Extensions; so other scripts (script_property.h)
//   \p{Graph}   and other names of sets, as [[:graph:]] (named_sets.h)
//   \b \B       a boundary of word characters, and no boundary
//   \h \H       a hexadecimal digit
//   \v \R \N \O a vertical tab, a line's end of any kind, any character but a line feed, any at all
//   \u0041      a code point
//   (?m)        a dot that matches a line feed as well
//   {,n}        {0,n}; a brace that begins no interval is a character
//   [a[bc]]     a class inside a class is a union
//
// Which characters are in a set is decided by the program's tables alone, so that a match does not
// depend on the Unicode of the installed PCRE2: PCRE2 sees neither properties nor options about
// case, and no Unicode at all but of patterns with \1 or with sets that tell very many kinds of
// characters apart (pattern_alphabet.h).
//
// What is not known to mean the same is refused by name: class intersections, negated inner
// classes, properties that the tables do not have (Emoji, Lowercase), \X, \G, \K, a quantifier
// behind another, options inside a sequence, other kinds of groups; without regard to case (?i),
// sets inside classes and letters whose folds the program does not know (case_folds.h).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace qlora::data {

class Regex {
 public:
  // `where` is what the FormatError for a bad pattern calls it.
  explicit Regex(const std::string& pattern, const std::string& where = "regular expression");
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Match {
    size_t begin, end;  // byte offsets into the text
  };
  class Search;

 private:
  struct Compiled;
  std::unique_ptr<const Compiled> compiled_;
};

// Finds matches from left to right in a valid UTF-8 text, which must outlive it as the regular
// expression must.
class Regex::Search {
 public:
  Search(const Regex& regex, std::string_view text);

  // Finds the leftmost match at or behind `from`, where a character begins or the text ends and
  // which is not before the end of the last match; false if there is none. What lies before `from`
  // is seen by look-behind only. Error if the pattern needs more backtracking than PCRE2 allows.
  bool find(size_t from, Match& match);

 private:
  // Moves to the character at a byte of the text, or at a byte of what is searched.
  void move_to(size_t byte);
  void move_to_searched(size_t searched);

  const Compiled& compiled_;
  std::string_view text_;
  std::optional<std::string> symbols_;  // what is searched; nothing: the text itself
  size_t byte_ = 0, searched_ = 0;      // the same character in both
};

}  // namespace qlora::data
