#include <map>

#include "base/error.h"
#include "data/tokenizers/regex.h"
#include "data/tokenizers/script_property.h"

namespace qlora::data {
namespace {

// Spelling of an escape inside and outside of a class; PCRE2 shares all other escapes.
struct Respelled {
  const char* in_class;
  const char* outside;
};

// Oniguruma's word characters in a class: those of Unicode Technical Standard 18; outside of one
// also Latin-1's numbers.
#define QLORA_CLASS_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define QLORA_WORD QLORA_CLASS_WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

const Respelled* respelled(char letter) {
  static const std::map<char, Respelled> table = {
      {'s', {"\\p{White_Space}", "\\p{White_Space}"}},
      {'S', {"\\P{White_Space}", "\\P{White_Space}"}},
      {'w', {QLORA_CLASS_WORD, "[" QLORA_WORD "]"}},
      {'W', {nullptr, "[^" QLORA_WORD "]"}},
      {'b',
       {"\\b",
        "(?:(?<=[" QLORA_WORD "])(?![" QLORA_WORD "])|(?<![" QLORA_WORD "])(?=[" QLORA_WORD "]))"}},
      {'B',
       {nullptr,
        "(?:(?<=[" QLORA_WORD "])(?=[" QLORA_WORD "])|(?<![" QLORA_WORD "])(?![" QLORA_WORD "]))"}},
      {'h', {"0-9A-Fa-f", "[0-9A-Fa-f]"}},
      {'H', {nullptr, "[^0-9A-Fa-f]"}},
  };
  const auto entry = table.find(letter);
  return entry == table.end() ? nullptr : &entry->second;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string run() {
    while (index_ < pattern_.size()) {
      const char c = pattern_[index_];
      if (c == '\\') {
        escape(false);
      } else if (c == '[') {
        bracket_class();
      } else {
        if (c == '{') refuse_possessive_interval();
        copy();
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    fail<FormatError>("{}: {} at offset {} of the pattern '{}' is not supported", where_, what,
                      index_, pattern_);
  }

  void copy() { out_ += pattern_[index_++]; }

  void escape(bool in_class) {
    if (index_ + 1 >= pattern_.size()) refuse("a backslash at the end");
    const char letter = pattern_[index_ + 1];
    if (const Respelled* spelling = respelled(letter)) {
      const char* text = in_class ? spelling->in_class : spelling->outside;
      if (!text) refuse("a negated class of this kind inside a class");
      out_ += text;
      index_ += 2;
      return;
    }
    if (const auto escape = script_escape(pattern_.substr(index_))) {
      const std::string ranges = script_ranges(*escape);
      out_ += in_class ? ranges : "[" + ranges + "]";
      index_ += escape->size;
      return;
    }
    copy(), copy();
  }

  // {n,m}+ repeats the repetition in Oniguruma and forbids backtracking in PCRE2.
  void refuse_possessive_interval() const {
    size_t end = index_ + 1;
    while (end < pattern_.size() &&
           (pattern_[end] == ',' || (pattern_[end] >= '0' && pattern_[end] <= '9'))) {
      ++end;
    }
    const bool interval = end > index_ + 1 && end < pattern_.size() && pattern_[end] == '}';
    if (interval && pattern_.substr(end + 1).starts_with('+')) refuse("a '+' behind an interval");
  }

  void bracket_class() {
    copy();
    if (next_is("^")) copy();
    if (next_is("]")) copy();  // a closing bracket that comes first stands for itself
    int depth = 1;
    while (depth > 0) {
      if (index_ >= pattern_.size()) refuse("a class without its closing bracket");
      const char c = pattern_[index_];
      if (c == '\\') {
        escape(true);
      } else if (next_is("[:")) {
        copy_posix_class();
      } else if (c == '[') {
        if (pattern_.substr(index_ + 1).starts_with('^')) refuse("a negated class inside a class");
        ++depth, ++index_;
      } else if (c == ']') {
        if (--depth == 0)
          copy();
        else
          ++index_;
      } else if (next_is("&&")) {
        refuse("an intersection of classes");
      } else {
        copy();
      }
    }
  }

  void copy_posix_class() {
    const size_t end = pattern_.find(":]", index_ + 2);
    if (end == std::string_view::npos) refuse("a POSIX class without its end");
    out_ += pattern_.substr(index_, end + 2 - index_);
    index_ = end + 2;
  }

  bool next_is(std::string_view text) const { return pattern_.substr(index_).starts_with(text); }

  std::string_view pattern_;
  const std::string& where_;
  size_t index_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace qlora::data
