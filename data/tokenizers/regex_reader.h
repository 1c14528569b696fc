// Reads the regular expression of a pre-tokenizer, written for Oniguruma, character by character
// and set by set; see regex.h.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "data/tokenizers/code_set.h"

namespace qlora::data {

inline bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }
inline bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class RegexReader {
 public:
  RegexReader(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  // FormatErrors about what stands at the index.
  [[noreturn]] void refuse(const std::string& what) const;  // what is not supported
  [[noreturn]] void reject(const std::string& why) const;   // what is no regular expression

  size_t index() const { return index_; }
  bool at_end() const { return index_ >= pattern_.size(); }
  std::string_view rest() const { return pattern_.substr(index_); }
  bool next_is(std::string_view text) const { return rest().starts_with(text); }
  char next() const { return pattern_[index_]; }
  // The letter of the escape at the index.
  char escaped_letter() const;
  std::string_view skip(size_t bytes);

  // Each of these moves the index behind what it reads.
  char32_t character();          // that stands for itself
  char32_t escaped_character();  // \n, \-, \x41, \x{1F970}, \u0041
  const CodeSet& property();     // \p{...}
  CodeSet posix_class();         // [:...:]
  // A whole class, with its brackets.
  CodeSet bracket_class();

  // Whether without regard to case: options of the pattern say so.
  bool ignores_case = false;
  // The character, without regard to case also those that fold to the same one.
  CodeSet set_of(char32_t code) const;

 private:
  // The members of a class as far as they are read.
  struct Members;

  void require_known_fold(char32_t code) const;
  char32_t code_point();
  void class_member(Members& members);
  void class_character(Members& members);
  void class_escape(Members& members);
  void add_set(Members& members, size_t begin, const CodeSet& set);

  std::string_view pattern_;
  const std::string& where_;
  size_t index_ = 0;
  std::map<std::string_view, CodeSet> properties_;  // by their notation
};

}  // namespace qlora::data
