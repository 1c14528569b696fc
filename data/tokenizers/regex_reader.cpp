#include "data/tokenizers/regex_reader.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/case_folds.h"
#include "data/tokenizers/named_sets.h"
#include "data/tokenizers/script_property.h"
#include "data/tokenizers/translated_pattern.h"

namespace qlora::data {
namespace {

// Letters of escapes for control characters, and what they mean.
constexpr std::string_view kControlLetters = "ntrfae";
constexpr std::string_view kControls = "\n\t\r\f\a\x1B";

}  // namespace

void RegexReader::refuse(const std::string& what) const {
  fail<FormatError>("{}: {} at offset {} of the pattern '{}' is not supported", where_,
                    shortened_utf8(what, 120), index_, quoted_pattern(pattern_, index_));
}

void RegexReader::reject(const std::string& why) const {
  fail<FormatError>("{}: there must be a regular expression, but {} at offset {} of '{}'", where_,
                    why, index_, quoted_pattern(pattern_, index_));
}

char RegexReader::escaped_letter() const {
  if (index_ + 1 >= pattern_.size()) refuse("a backslash at the end");
  return pattern_[index_ + 1];
}

std::string_view RegexReader::skip(size_t bytes) {
  const std::string_view text = rest().substr(0, bytes);
  index_ += text.size();
  return text;
}

char32_t RegexReader::character() {
  size_t end = index_;
  const char32_t code = next_code_point(pattern_, end);
  require_known_fold(code);
  index_ = end;
  return code;
}

char32_t RegexReader::escaped_character() {
  const char letter = escaped_letter();
  if (letter == 'x' || letter == 'u') return code_point();
  const size_t control = kControlLetters.find(letter);
  if (control != std::string_view::npos) {
    skip(2);
    return static_cast<unsigned char>(kControls[control]);
  }
  if (is_ascii_letter(letter) || is_ascii_digit(letter)) refuse(fmt::format("\\{}", letter));
  skip(1);
  return character();
}

// \x41, \x{1F970}, \u0041
char32_t RegexReader::code_point() {
  const bool is_braced = next_is("\\x{");
  const std::string_view behind = rest().substr(is_braced ? 3 : 2);
  const size_t wanted = is_braced ? behind.find('}') : next_is("\\u") ? 4 : 2;
  uint32_t code = 0;
  const std::string_view digits = behind.substr(0, wanted);
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
  const bool is_whole = digits.size() == wanted && wanted > 0 && read.ec == std::errc() &&
                        read.ptr == digits.data() + digits.size();
  const bool is_byte = next_is("\\x") && !is_braced && code >= 0x80;
  if (!is_whole || is_byte || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
    refuse("a code that is no character's");
  require_known_fold(code);
  skip((is_braced ? 4 : 2) + digits.size());
  return code;
}

const CodeSet& RegexReader::property() {
  const auto escape = property_escape(rest());
  if (!escape) refuse("a \\p without {...}");
  const std::string_view notation = rest().substr(0, escape->size);
  auto known = properties_.find(notation);
  if (known == properties_.end()) {
    const auto script = script_escape(notation);
    auto set = script ? script_set(*script) : property_set(escape->name);
    if (!set) refuse(fmt::format("the property {}", notation));
    if (!script && escape->is_negated) set = set->complement();
    known = properties_.emplace(notation, std::move(*set)).first;
  }
  skip(notation.size());
  return known->second;
}

CodeSet RegexReader::posix_class() {
  const size_t end = rest().find(":]", 2);
  if (end == std::string_view::npos) refuse("a POSIX class without its end");
  const std::string_view notation = rest().substr(0, end + 2);
  std::string_view name = notation.substr(2, notation.size() - 4);
  const bool is_negated = name.starts_with('^');
  if (is_negated) name.remove_prefix(1);
  const auto set = posix_set(name);
  if (!set) refuse(fmt::format("the POSIX class {}", notation));
  skip(notation.size());
  return is_negated ? set->complement() : *set;
}

CodeSet RegexReader::set_of(char32_t code) const {
  if (!ignores_case) return CodeSet(code);
  std::vector<CodeSet::Range> same;
  for (const char32_t other : same_fold(code)) same.push_back({other, other});
  return CodeSet(std::move(same));
}

void RegexReader::require_known_fold(char32_t code) const {
  if (ignores_case && !folds_alike(code))
    refuse(fmt::format("U+{:04X} without regard to case", static_cast<uint32_t>(code)));
}

}  // namespace qlora::data
