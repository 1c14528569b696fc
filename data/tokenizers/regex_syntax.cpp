#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/case_folds.h"
#include "data/tokenizers/named_sets.h"
#include "data/tokenizers/regex_escapes.h"
#include "data/tokenizers/script_property.h"
#include "data/tokenizers/translated_pattern.h"

namespace qlora::data {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  TranslatedPattern run() {
    while (index_ < pattern_.size()) {
      begin_step();
      const char c = pattern_[index_];
      if (c == '(') {
        open_group();
      } else if (c == ')') {
        close_group();
      } else if (c == '|') {
        copy();
        begin_sequence();
      } else if (c == '*' || c == '+' || c == '?' || (c == '{' && interval_size() > 0)) {
        quantifier();
      } else {
        is_start_ = is_quantified_ = false;
        atom();
      }
    }
    begin_step();
    return {std::move(out_), std::move(steps_)};
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail<FormatError>("{}: {} at offset {} of the pattern '{}' is not supported", where_,
                      shortened_utf8(what, 120), index_, quoted_pattern(pattern_, index_));
  }

  void begin_step() { steps_.emplace_back(out_.size(), index_); }
  bool next_is(std::string_view text) const { return pattern_.substr(index_).starts_with(text); }
  void copy() { out_ += pattern_[index_++]; }
  void write(std::string_view text, size_t read) {
    out_ += text;
    index_ += read;
  }

  // Groups and alternatives.

  void begin_sequence() {
    is_start_ = true;
    is_quantified_ = false;
    last_letter_ = 0;
  }

  void open_group() {
    static constexpr std::string_view kOpenings[] = {"(?:",  "(?=",  "(?!", "(?>",
                                                     "(?<=", "(?<!", "(?<"};
    if (next_is("(*")) refuse("a group that begins with '(*'");
    if (!next_is("(?")) {
      write("(", 1);
      return enter_group(ignores_case_);
    }
    for (const std::string_view opening : kOpenings) {
      if (!next_is(opening)) continue;
      has_names_ = has_names_ || opening == "(?<";
      write(opening, opening.size());
      // The name goes up to its '>'; PCRE2 refuses what is none.
      while (opening == "(?<" && index_ < pattern_.size() && pattern_[index_ - 1] != '>') copy();
      return enter_group(ignores_case_);
    }
    options();
  }

  // (?im-im) and (?im-im:...). Oniguruma's m is PCRE2's s.
  void options() {
    size_t at = index_ + 2;
    bool on = true, ignores_case = ignores_case_;
    std::string spelled = "(?";
    for (; at < pattern_.size() && pattern_[at] != ')' && pattern_[at] != ':'; ++at) {
      const char c = pattern_[at];
      if (c != 'i' && c != 'm' && c != '-')
        refuse(
            fmt::format("a group that begins with '{}'", pattern_.substr(index_, at + 1 - index_)));
      if (c == '-') on = false;
      if (c == 'i') ignores_case = on;
      spelled += c == 'm' ? 's' : c;
    }
    if (at == pattern_.size()) refuse("a group without its end");
    if (pattern_[at] == ':') {
      write(spelled + ':', at + 1 - index_);
      return enter_group(ignores_case);
    }
    // For Oniguruma it holds the alternatives that follow, as if in a group of their own.
    if (!is_start_) refuse("an option that stands inside a sequence");
    write(spelled + ')', at + 1 - index_);
    ignores_case_ = ignores_case;
  }

  void enter_group(bool ignores_case) {
    outside_.push_back(ignores_case_);
    ignores_case_ = ignores_case;
    is_start_ = true;
    is_quantified_ = false;
  }

  void close_group() {
    if (outside_.empty()) refuse("a ')' without its '('");
    copy();
    ignores_case_ = outside_.back();
    outside_.pop_back();
    is_start_ = is_quantified_ = false;
  }

  // Quantifiers.

  // Bytes of the {n}, {n,}, {n,m} or {,m} that comes next; 0: the brace stands for itself.
  size_t interval_size() const {
    size_t end = index_ + 1;
    size_t digits = 0;
    for (; end < pattern_.size() && (is_digit(pattern_[end]) || pattern_[end] == ','); ++end)
      digits += is_digit(pattern_[end]);
    const std::string_view inside = pattern_.substr(index_ + 1, end - index_ - 1);
    const bool is_closed = end < pattern_.size() && pattern_[end] == '}';
    const bool is_one = inside.find(',') == inside.rfind(',');
    return digits > 0 && is_closed && is_one ? end + 1 - index_ : 0;
  }

  void quantifier() {
    if (is_quantified_) refuse("a quantifier behind a quantifier");
    is_start_ = false;
    is_quantified_ = true;
    last_letter_ = 0;
    if (pattern_[index_] != '{') {
      copy();
      if (next_is("?") || next_is("+")) copy();
      return;
    }
    const std::string_view interval = pattern_.substr(index_, interval_size());
    const std::string_view behind = pattern_.substr(index_ + interval.size());
    // They repeat the repetition, as in (?:a{2})+ and (?:a{2})?.
    if (behind.starts_with('+')) refuse("a '+' behind an interval");
    const bool is_exact = interval.find(',') == std::string_view::npos;
    if (is_exact && behind.starts_with('?')) refuse("a '?' behind an interval of one number");
    const bool is_from_0 = interval[1] == ',';
    write(is_from_0 ? "{0" + std::string(interval.substr(1)) : std::string(interval),
          interval.size());
    if (next_is("?")) copy();
  }

  // Characters and sets.

  void atom() {
    const char c = pattern_[index_];
    if (c == '\\') {
      escape();
    } else if (c == '[') {
      bracket_class();
      last_letter_ = 0;
    } else if (c == '{') {
      write("\\{", 1);
      last_letter_ = 0;
    } else if (c == '.' || c == '^' || c == '$') {
      copy();
      last_letter_ = 0;
    } else {
      literal();
    }
  }

  // A character that stands for itself.
  void literal() {
    const size_t begin = index_;
    size_t end = begin;
    const char32_t code = next_code_point(pattern_, end);
    require_known_fold(code);
    if (ignores_case_ && folds_to_one(last_letter_, pattern_[begin]))
      refuse("a pair of letters that other letters fold to, without regard to case,");
    last_letter_ = code < 0x80 ? pattern_[begin] : '\0';
    write(pattern_.substr(begin, end - begin), end - begin);
  }

  void require_known_fold(char32_t code) const {
    if (ignores_case_ && !folds_alike(code))
      refuse(fmt::format("U+{:04X} without regard to case", static_cast<uint32_t>(code)));
  }

  void escape() {
    if (index_ + 1 >= pattern_.size()) refuse("a backslash at the end");
    const char letter = pattern_[index_ + 1];
    last_letter_ = 0;
    if (const Respelled* spelling = respelled(letter)) return write(spelling->outside, 2);
    if (letter == 'p' || letter == 'P') {
      // Oniguruma folds no properties, and PCRE2 would fold ranges.
      const auto [set, size] = property();
      const std::string spelled = is_one_property(set) ? set : '[' + set + ']';
      return write(ignores_case_ ? "(?-i:" + spelled + ')' : spelled, size);
    }
    if (letter >= '1' && letter <= '9') return backreference();
    if (letter == 'A' || letter == 'z' || letter == 'Z')
      return write(pattern_.substr(index_, 2), 2);
    escaped_character();
  }

  static bool is_one_property(const std::string& set) {
    return set[1] != 'x' && set.find('}') == set.size() - 1;
  }

  void backreference() {
    const bool is_long = index_ + 2 < pattern_.size() && is_digit(pattern_[index_ + 2]);
    if (is_long || has_names_ || ignores_case_) refuse("a number behind a backslash");
    write(pattern_.substr(index_, 2), 2);
  }

  // One that means one character, in a class and outside of it.
  char32_t escaped_character() {
    const char letter = pattern_[index_ + 1];
    if (letter == 'x' || letter == 'u') return code_point();
    const bool is_control = std::string_view("ntrfae").find(letter) != std::string_view::npos;
    if (!is_control && (is_letter(letter) || is_digit(letter))) refuse(fmt::format("\\{}", letter));
    const size_t begin = index_++;
    const char32_t code = next_code_point(pattern_, index_);
    require_known_fold(code);
    out_ += pattern_.substr(begin, index_ - begin);
    return code;
  }

  // \x41, \x{1F970}, \u0041
  char32_t code_point() {
    const bool is_braced = next_is("\\x{");
    const std::string_view rest = pattern_.substr(index_ + (is_braced ? 3 : 2));
    const size_t wanted = is_braced ? rest.find('}') : next_is("\\u") ? 4 : 2;
    uint32_t code = 0;
    const std::string_view digits = rest.substr(0, std::min(wanted, rest.size()));
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    const bool is_whole = digits.size() == wanted && wanted > 0 && read.ec == std::errc() &&
                          read.ptr == digits.data() + digits.size();
    const bool is_byte = next_is("\\x") && !is_braced && code >= 0x80;
    if (!is_whole || is_byte || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      refuse("a code that is no character's");
    require_known_fold(code);
    write(fmt::format("\\x{{{:X}}}", code), (is_braced ? 4 : 2) + digits.size());
    return code;
  }

  struct Property {
    std::string set;  // the inside of a class
    size_t size;
  };

  Property property() const {
    const std::string_view rest = pattern_.substr(index_);
    if (const auto script = script_escape(rest)) return {script_ranges(*script), script->size};
    const auto escape = property_escape(rest);
    if (!escape) refuse("a \\p without {...}");
    const auto set = property_set(escape->name, escape->is_negated);
    if (!set) refuse(fmt::format("the property {}", rest.substr(0, escape->size)));
    return {*set, escape->size};
  }

  // Classes.

  void bracket_class() {
    copy();
    if (next_is("^")) copy();
    if (next_is("]")) write("\\]", 1);  // a closing bracket that comes first stands for itself
    int depth = 1;
    bool after_hyphen = false;
    while (depth > 0) {
      if (index_ >= pattern_.size()) refuse("a class without its closing bracket");
      begin_step();
      const bool is_hyphen = next_is("-");
      if (next_is("[") && !next_is("[:")) {
        if (after_hyphen) refuse("a class behind a '-'");
        ++depth;
        open_inner_class();
      } else if (next_is("]")) {
        if (--depth == 0) {
          copy();
        } else {
          close_inner_class(after_hyphen);
        }
      } else {
        class_member(after_hyphen);
      }
      after_hyphen = is_hyphen;
    }
  }

  // Inner brackets are left out; a '-' beside them stays what it was, a character.
  void open_inner_class() {
    ++index_;
    if (next_is("^")) refuse("a negated class inside a class");
    if (next_is("]")) write("\\]", 1);
    keep_hyphen();
  }

  void close_inner_class(bool after_hyphen) {
    ++index_;
    if (after_hyphen) out_.insert(out_.size() - 1, "\\");
    keep_hyphen();
  }

  // A '-' that comes next and makes no range.
  void keep_hyphen() {
    if (next_is("-")) write("\\-", 1);
  }

  void class_member(bool after_hyphen) {
    if (next_is("[:")) return class_set(after_hyphen, posix_class());
    if (next_is("&&")) refuse("an intersection of classes");
    if (!next_is("\\")) {
      const size_t begin = index_;
      require_listed(after_hyphen, next_code_point(pattern_, index_));
      out_ += pattern_.substr(begin, index_ - begin);
      return;
    }
    if (index_ + 1 >= pattern_.size()) refuse("a backslash at the end");
    const char letter = pattern_[index_ + 1];
    if (letter == 'p' || letter == 'P') return class_set(after_hyphen, property());
    if (letter == 'W') return class_set(after_hyphen, {*posix_set("word", true), 2});
    const Respelled* spelling = respelled(letter);
    if (!spelling) return require_listed(after_hyphen, escaped_character());
    if (!spelling->in_class) refuse(fmt::format("\\{} inside a class", letter));
    if (letter == 'b' || letter == 'v') return write(spelling->in_class, 2);
    class_set(after_hyphen, {spelling->in_class, 2});
  }

  // Of a character in a class, which was read.
  void require_listed(bool after_hyphen, char32_t code) const {
    require_known_fold(code);
    if (ignores_case_ && code >= 0x80 && (after_hyphen || next_is("-")))
      refuse("a range beyond ASCII, without regard to case,");
  }

  // Without regard to case, a class takes the other cases of all its members.
  void class_set(bool after_hyphen, const Property& set) {
    const std::string_view text = pattern_.substr(index_, set.size);
    if (ignores_case_ && text != "\\s" && text != "\\d" && text != "\\h")
      refuse(fmt::format("{} in a class, without regard to case,", text));
    if (after_hyphen) out_.insert(out_.size() - 1, "\\");
    write(set.set, set.size);
    if (!next_is("-]")) keep_hyphen();
  }

  Property posix_class() const {
    const size_t end = pattern_.find(":]", index_ + 2);
    if (end == std::string_view::npos) refuse("a POSIX class without its end");
    const std::string_view text = pattern_.substr(index_, end + 2 - index_);
    std::string_view name = text.substr(2, text.size() - 4);
    const bool is_negated = name.starts_with('^');
    if (is_negated) name.remove_prefix(1);
    const auto set = posix_set(name, is_negated);
    if (!set) refuse(fmt::format("the POSIX class {}", text));
    return {*set, text.size()};
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t index_ = 0;
  std::string out_;
  std::vector<std::pair<size_t, size_t>> steps_;  // TranslatedPattern::steps
  std::vector<bool> outside_;  // what ignores_case_ is behind the groups that are open
  bool ignores_case_ = false;
  bool is_start_ = true;        // of a group or an alternative
  bool is_quantified_ = false;  // what was read last
  bool has_names_ = false;      // groups with a name
  char last_letter_ = 0;        // the literal of ASCII in front
};

}  // namespace

TranslatedPattern translate_oniguruma(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace qlora::data
