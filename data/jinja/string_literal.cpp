#include "data/jinja/string_literal.h"

#include <fmt/format.h>

#include "base/utf8.h"
#include "data/jinja/letter_case.h"

namespace qlora::data::jinja {
namespace {

constexpr char32_t kLastCodePoint = 0x10FFFF;

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

// Reads `count` digits at `index`; throws BadEscape at `start` if they are not there.
char32_t read_hex(std::string_view text, size_t& index, size_t count, size_t start) {
  char32_t code = 0;
  for (size_t i = 0; i < count; ++i, ++index) {
    if (index >= text.size() || digit_of(text[index]) > 15) throw BadEscape{start};
    code = code * 16 + static_cast<char32_t>(digit_of(text[index]));
  }
  return code;
}

char32_t read_octal(std::string_view text, size_t& index) {
  char32_t code = 0;
  for (int i = 0; i < 3 && index < text.size() && digit_of(text[index]) < 8; ++i, ++index) {
    code = code * 8 + static_cast<char32_t>(digit_of(text[index]));
  }
  return code;
}

}  // namespace

std::string unescape(std::string_view text) {
  static constexpr std::string_view kLetters = "abfnrtv\\'\"";
  static constexpr std::string_view kMeant = "\a\b\f\n\r\t\v\\'\"";
  std::string result;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '\\') {
      result += text[i++];
      continue;
    }
    const size_t start = i++;
    const char c = i < text.size() ? text[i] : '\0';
    const size_t letter = kLetters.find(c);
    if (c != '\0' && letter != std::string_view::npos) {
      result += kMeant[letter];
      ++i;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      ++i;
      const char32_t code = read_hex(text, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, start);
      if (code > kLastCodePoint || (code >= 0xD800 && code < 0xE000)) throw BadEscape{start};
      append_utf8(code, result);
    } else if (c >= '0' && c <= '7') {
      append_utf8(read_octal(text, i), result);
    } else if (c == '\n') {
      ++i;
    } else if (c == 'N') {
      throw BadEscape{start};
    } else {
      result += '\\';
    }
  }
  return result;
}

void write_string_repr(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out += quote;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const char32_t code = next_code_point(text, i);
    if (code == static_cast<char32_t>(quote) || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else if (is_printable(code)) {
      out += text.substr(begin, i - begin);
    } else if (code < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(code));
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(code));
    }
  }
  out += quote;
}

}  // namespace qlora::data::jinja
