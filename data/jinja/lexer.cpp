#include "data/jinja/lexer.h"

#include <fmt/format.h>

#include <array>
#include <cctype>

#include "base/utf8.h"
#include "data/jinja/string_literal.h"
#include "data/jinja/text.h"
#include "data/tokenizers/unicode.h"

namespace qlora::data::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(const Source& source) : source_(source), text_(source.text()) {}

  std::vector<Token> run() {
    while (position_ < text_.size()) read_text_and_tag();
    emit(TokenKind::kEnd, "", position_);
    return std::move(tokens_);
  }

 private:
  void emit(TokenKind kind, std::string_view text, size_t offset) {
    tokens_.push_back({kind, std::string(text), offset});
  }
  [[noreturn]] void fail_at(size_t offset, std::string_view message) const {
    source_.fail_at(source_.position_of(offset), message);
  }
  char at(size_t index) const { return index < text_.size() ? text_[index] : '\0'; }
  bool starts(size_t index, std::string_view what) const {
    return text_.substr(std::min(index, text_.size())).starts_with(what);
  }

  size_t skip_space(size_t index) const {
    while (index < text_.size()) {
      size_t next = index;
      if (!is_python_space(next_code_point(text_, next))) break;
      index = next;
    }
    return index;
  }

  size_t find_tag(size_t from) const {
    for (size_t i = text_.find('{', from); i != kNone; i = text_.find('{', i + 1)) {
      if (at(i + 1) == '%' || at(i + 1) == '{' || at(i + 1) == '#') return i;
    }
    return kNone;
  }

  // Text up to the tag at `tag`, whose sign and kind say what white space before it goes.
  void emit_text(size_t tag, bool is_variable) {
    std::string_view part = text_.substr(position_, tag - position_);
    const char sign = at(tag + 2);
    if (sign == '-') {
      part = strip(part, false, true);
    } else if (sign != '+' && !is_variable) {
      const size_t line_end = part.rfind('\n');
      const bool at_line_start =
          line_end != kNone || position_ == 0 || text_[position_ - 1] == '\n';
      const size_t line = line_end == kNone ? 0 : line_end + 1;
      if (at_line_start && strip(part.substr(line), true, false).empty()) {
        part = part.substr(0, line);
      }
    }
    if (!part.empty()) emit(TokenKind::kText, part, position_);
  }

  void read_text_and_tag() {
    const size_t tag = find_tag(position_);
    if (tag == kNone) {
      emit(TokenKind::kText, text_.substr(position_), position_);
      position_ = text_.size();
      return;
    }
    const bool is_variable = at(tag + 1) == '{';
    emit_text(tag, is_variable);
    position_ = tag + 2;
    if (at(position_) == '-' || at(position_) == '+') ++position_;
    if (at(tag + 1) == '#') return skip_comment(tag);
    if (is_variable) {
      emit(TokenKind::kVariableBegin, "{{", tag);
      return read_tag(tag, true);
    }
    if (!read_raw(tag)) {
      emit(TokenKind::kBlockBegin, "{%", tag);
      read_tag(tag, false);
    }
  }

  void skip_comment(size_t tag) {
    const size_t end = text_.find("#}", position_);
    if (end == kNone) fail_at(tag, "the comment has no end #}");
    const char sign = end > position_ ? at(end - 1) : '\0';
    finish_tag(end + 2, sign, true);
  }

  // Behind a tag's end: '-' removes all white space, else a block's end takes one line end along.
  void finish_tag(size_t end, char sign, bool is_block) {
    position_ = end;
    if (sign == '-') position_ = skip_space(end);
    if (sign != '-' && sign != '+' && is_block && at(end) == '\n') ++position_;
  }

  // {% raw %} text {% endraw %}; false if the tag is not that one.
  bool read_raw(size_t tag) {
    size_t i = skip_space(position_);
    if (!starts(i, "raw")) return false;
    i = skip_space(i + 3);
    const bool minus = starts(i, "-%}");
    if (!minus && !starts(i, "%}")) return false;
    finish_tag(i + (minus ? 3 : 2), minus ? '-' : '\0', false);
    for (size_t end = text_.find("{%", position_); end != kNone; end = text_.find("{%", end + 1)) {
      size_t word = end + 2;
      if (at(word) == '-' || at(word) == '+') ++word;
      word = skip_space(word);
      if (!starts(word, "endraw")) continue;
      word = skip_space(word + 6);
      const char sign = at(word) == '-' || at(word) == '+' ? at(word) : '\0';
      if (sign != '\0') ++word;
      if (!starts(word, "%}")) continue;
      emit_text(end, false);
      finish_tag(word + 2, sign, true);
      return true;
    }
    fail_at(tag, "the raw block has no {% endraw %}");
  }

  // The tokens of a tag up to and with its end.
  void read_tag(size_t tag, bool is_variable) {
    const std::string_view end = is_variable ? "}}" : "%}";
    const TokenKind end_kind = is_variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd;
    brackets_.clear();
    while (true) {
      position_ = skip_space(position_);
      if (position_ >= text_.size()) fail_at(tag, fmt::format("the tag has no end {}", end));
      if (brackets_.empty()) {
        const char sign = at(position_);
        const bool signed_end =
            (sign == '-' || (sign == '+' && !is_variable)) && starts(position_ + 1, end);
        if (signed_end || starts(position_, end)) {
          emit(end_kind, end, position_);
          return finish_tag(position_ + (signed_end ? 3 : 2), signed_end ? sign : '\0',
                            !is_variable);
        }
      }
      read_token();
    }
  }

  void read_token() {
    const char c = at(position_);
    if (is_digit(c)) return read_number();
    if (c == '\'' || c == '"') return read_string(c);
    size_t end = position_;
    while (end < text_.size()) {
      size_t next = end;
      if (!is_word_character(next_code_point(text_, next))) break;
      end = next;
    }
    if (end > position_) {
      emit(TokenKind::kName, text_.substr(position_, end - position_), position_);
      position_ = end;
      return;
    }
    read_operator();
  }

  void read_string(char quote) {
    size_t end = position_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail_at(position_, "the string has no end");
    std::string value;
    try {
      value = unescape(text_.substr(position_ + 1, end - position_ - 1));
    } catch (const BadEscape& error) {
      fail_at(position_ + 1 + error.offset, "an escape in a string must name a character");
    }
    emit(TokenKind::kString, value, position_);
    position_ = end + 1;
  }

  // Digits with single underscores between them.
  size_t skip_digits(size_t index, bool (*is_one)(char)) const {
    while (is_one(at(index)) || (at(index) == '_' && is_one(at(index + 1)))) ++index;
    return index;
  }

  void read_number() {
    const size_t begin = position_;
    const char letter = static_cast<char>(std::tolower(static_cast<unsigned char>(at(begin + 1))));
    if (at(begin) == '0' && (letter == 'x' || letter == 'o' || letter == 'b')) {
      position_ = skip_digits(
          begin + 2, [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
      return emit(TokenKind::kInteger, text_.substr(begin, position_ - begin), begin);
    }
    size_t end = skip_digits(begin, is_digit);
    bool is_float = false;
    const bool behind_dot = begin > 0 && text_[begin - 1] == '.';  // x.0.1 is no float
    if (!behind_dot && at(end) == '.' && is_digit(at(end + 1))) {
      is_float = true;
      end = skip_digits(end + 1, is_digit);
    }
    if (!behind_dot && (at(end) == 'e' || at(end) == 'E')) {
      const size_t digits = end + (at(end + 1) == '+' || at(end + 1) == '-' ? 2 : 1);
      if (is_digit(at(digits))) {
        is_float = true;
        end = skip_digits(digits, is_digit);
      }
    }
    emit(is_float ? TokenKind::kFloat : TokenKind::kInteger, text_.substr(begin, end - begin),
         begin);
    position_ = end;
  }

  void read_operator() {
    static constexpr std::array<std::string_view, 6> kPairs = {"==", "!=", "<=", ">=", "//", "**"};
    static constexpr std::string_view kSingles = "+-/*%~[](){}<>=.:|,";
    for (const std::string_view pair : kPairs) {
      if (!starts(position_, pair)) continue;
      emit(TokenKind::kOperator, pair, position_);
      position_ += pair.size();
      return;
    }
    const char c = at(position_);
    if (kSingles.find(c) == kNone) {
      size_t next = position_;
      next_code_point(text_, next);
      fail_at(position_,
              fmt::format("'{}' means nothing here", text_.substr(position_, next - position_)));
    }
    balance(c);
    emit(TokenKind::kOperator, std::string_view(&c, 1), position_);
    ++position_;
  }

  void balance(char c) {
    if (c == '(' || c == '[' || c == '{')
      brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c != ')' && c != ']' && c != '}') return;
    if (brackets_.empty()) fail_at(position_, fmt::format("'{}' closes nothing", c));
    if (brackets_.back() != c) {
      fail_at(position_, fmt::format("must be '{}', found '{}'", brackets_.back(), c));
    }
    brackets_.pop_back();
  }

  const Source& source_;
  const std::string_view text_;
  size_t position_ = 0;
  std::string brackets_;  // closing brackets awaited, innermost last
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(const Source& source) { return Lexer(source).run(); }

}  // namespace qlora::data::jinja
