// The tokens of a template, one looked at at a time.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "data/jinja/lexer.h"

namespace qlora::data::jinja {

class TokenStream {
 public:
  explicit TokenStream(const Source& source) : source_(source), tokens_(tokenize(source)) {}

  const Token& current() const { return tokens_[index_]; }
  const Token& ahead() const { return tokens_[std::min(index_ + 1, tokens_.size() - 1)]; }
  size_t offset() const { return current().offset; }
  Token take() { return tokens_[index_ + 1 < tokens_.size() ? index_++ : index_]; }

  bool is(TokenKind kind) const { return current().kind == kind; }
  bool is_operator(std::string_view text) const { return is(TokenKind::kOperator, text); }
  bool is_name(std::string_view text) const { return is(TokenKind::kName, text); }
  bool is_one_of(std::initializer_list<std::string_view> names) const {
    for (const std::string_view name : names) {
      if (is_name(name)) return true;
    }
    return false;
  }
  bool skip_operator(std::string_view text) { return is_operator(text) && (take(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (take(), true); }

  void expect_operator(std::string_view text) {
    if (!skip_operator(text)) fail_on_token(text);
  }
  void expect_name(std::string_view text) {
    if (!skip_name(text)) fail_on_token(text);
  }
  std::string expect_any_name(std::string_view what) {
    if (!is(TokenKind::kName)) fail_on_token(what);
    return take().text;
  }
  void expect(TokenKind kind, std::string_view what) {
    if (!is(kind)) fail_on_token(what);
    take();
  }

  [[noreturn]] void fail_on_token(std::string_view expected) const {
    const std::string found =
        is(TokenKind::kEnd) ? "the template's end" : "'" + shortened_utf8(current().text, 40) + "'";
    fail_at(offset(), fmt::format("must be {}, found {}", expected, found));
  }
  [[noreturn]] void fail_at(size_t offset, std::string_view message) const {
    source_.fail_at(source_.position_of(offset), message);
  }

  // One level of nesting in the source; FormatError when it is too deep for this program's stack.
  class Nesting {
   public:
    explicit Nesting(TokenStream& stream) : stream_(stream) {
      if (++stream_.depth_ > kMostLevels) {
        stream_.fail_at(stream_.offset(),
                        fmt::format("must be nested at most {} levels deep", kMostLevels));
      }
    }
    ~Nesting() { --stream_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenStream& stream_;
  };

 private:
  static constexpr int kMostLevels = 200;

  bool is(TokenKind kind, std::string_view text) const {
    return current().kind == kind && current().text == text;
  }

  const Source& source_;
  std::vector<Token> tokens_;
  size_t index_ = 0;
  int depth_ = 0;
};

}  // namespace qlora::data::jinja
