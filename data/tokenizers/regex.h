// Regular expressions of pre-tokenizers: written for Oniguruma, run by PCRE2 with its JIT.
//
// Both engines backtrack and take the leftmost, first alternative, so a translation of the
// notations that differ is exact:
//
//   \s \S       property White_Space (PCRE2's own \s also takes U+180E)
//   \w \W       letters, marks, digits, connectors (PCRE2's own \w leaves out marks)
//   \p{Han}     property Script, not Script_Extensions; so other scripts (script_property.h)
//   \p{Graph}   and other names of sets, as [[:graph:]] (named_sets.h)
//   \b \B       a boundary of word characters, and no boundary
//   \h \H       a hexadecimal digit (horizontal space in PCRE2)
//   \v \R \N \O a vertical tab, a line's end of any kind, any character but a line feed, any at all
//   \u0041      a code point
//   (?m)        a dot that matches a line feed as well (PCRE2's s)
//   {,n}        {0,n} (a text for older PCRE2); a brace that begins no interval is a character
//   [a[bc]]     a class inside a class is a union
//
// Which characters are in a class is decided by the program's tables, not by PCRE2's (stand_ins.h):
// search what prepared() gives, where that gives something.
//
// What is not known to mean the same is refused by name: class intersections, negated inner
// classes, properties that the tables do not have (Emoji, Lowercase), \X, \G, \K, a quantifier
// behind another, options inside a sequence, other kinds of groups; without regard to case (?i),
// sets inside classes and letters whose folds depend on the version of Unicode (case_folds.h).
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

  // The text to search instead of `text` (valid UTF-8), with the same offsets; nothing: itself.
  std::optional<std::string> prepared(std::string_view text) const;

  struct Match {
    size_t begin, end;  // byte offsets into the searched text
  };

  // Finds the leftmost match at or behind `from` in valid UTF-8 text; false if there is none. What
  // lies before `from` is seen by look-behind only. Error if the pattern needs more backtracking
  // than PCRE2 allows. Safe to call from several threads.
  bool find(std::string_view text, size_t from, Match& match) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace qlora::data
