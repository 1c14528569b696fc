#include "export/card_text.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "base/shown_text.h"

namespace qlora::exporting {
namespace {

std::string on_one_line(const std::string& text) {
  std::string line = shown_text(text);
  std::ranges::replace_if(
      line, [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line;
}

// With a backslash before each of `marks`.
std::string escaped(const std::string& text, std::string_view marks) {
  std::string result;
  for (const char c : text) {
    if (marks.find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

bool is_plain(unsigned char c) {
  return c < 0x80 &&
         (std::isalnum(c) ||
          std::string_view("@%+=:,./_-").find(static_cast<char>(c)) != std::string_view::npos);
}

size_t longest_run(const std::string& text, char what) {
  size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == what ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

}  // namespace

std::string shell_word(const std::string& text) {
  const std::string line = on_one_line(text);
  if (!line.empty() && std::ranges::all_of(line, is_plain)) return line;
  std::string word = "'";
  for (const char c : line) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

std::string python_text(const std::string& text) {
  std::string literal = "\"";
  // \x1B, as control characters are spelled out, means the same there.
  for (const char c : shown_text(escaped(text, "\\\""))) {
    if (c == '\n')
      literal += "\\n";
    else if (c == '\t')
      literal += "\\t";
    else
      literal += c;
  }
  return literal + "\"";
}

std::string markdown_text(const std::string& text) {
  return escaped(on_one_line(text), "\\`*<>[]");
}

std::string code_span(const std::string& text) {
  const std::string line = on_one_line(text);
  const std::string marks(longest_run(line, '`') + 1, '`');
  const std::string_view room = line.starts_with('`') || line.ends_with('`') ? " " : "";
  return marks + std::string(room) + line + std::string(room) + marks;
}

}  // namespace qlora::exporting
