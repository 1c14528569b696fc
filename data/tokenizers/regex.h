// Regular expressions of pre-tokenizers: written for Oniguruma, run by PCRE2 with its JIT.
//
// Both engines backtrack and take the leftmost, first alternative, so a translation of the few
// notations that differ is exact:
//
//   \s \S     property White_Space (PCRE2's own \s also takes U+180E)
//   \w \W     letters, marks, digits, connectors (PCRE2's own \w leaves out marks)
//   \p{Han}   property Script, not Script_Extensions; so other scripts (script_property.h)
//   \b \B     a boundary of such characters, and no boundary
//   \h \H     a hexadecimal digit (horizontal space in PCRE2)
//   [a[bc]]   a class inside a class is a union
//
// Which characters are in a class is decided by the program's tables, not by PCRE2's (stand_ins.h):
// search what prepared() gives, where that gives something.
//
// What Oniguruma knows beyond that and no known tokenizer uses (class intersections, negated inner
// classes, a + behind {n,m}) is refused by name.
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

// The PCRE2 spelling of an Oniguruma pattern.
std::string translate_oniguruma(std::string_view pattern, const std::string& where);

}  // namespace qlora::data
