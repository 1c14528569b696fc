// UTF-8 by hand: checking, stepping, appending. Text enters the tokenizers checked once, so that
// everything behind the check may step without looking.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace qlora {

// Offset of the first byte that is not part of well-formed UTF-8 (RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF); nothing if all of it is.
std::optional<size_t> find_invalid_utf8(std::string_view text);

// FormatError that names `what` and the offset of the first bad byte.
void check_utf8(std::string_view text, std::string_view what);

// `text` with every maximal ill-formed part replaced by U+FFFD, as the Unicode standard recommends.
std::string replace_invalid_utf8(std::string_view text);

// Bytes of the well-formed character that starts at `index`; 0 if none does.
size_t whole_utf8_character(std::string_view text, size_t index);

// The longest beginning, or end, of `text` of at most `longest` bytes that is cut between two
// characters. In what is not UTF-8 a cut lies at most three bytes before `longest`.
std::string_view utf8_beginning(std::string_view text, size_t longest);
std::string_view utf8_end(std::string_view text, size_t longest);

// `text`, cut between two characters to at most `longest` bytes with "..." behind them if it is
// longer.
std::string shortened_utf8(const std::string& text, size_t longest);

// At most `longest` bytes of `text` around the byte at `index`, which may be its end, cut between
// two characters, with "..." where something is left out.
std::string utf8_around(std::string_view text, size_t index, size_t longest);

// Whether a byte goes on with a character that began before it.
inline bool is_utf8_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Bytes of the character that starts with this byte, in valid UTF-8.
inline size_t utf8_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character at `index` of valid UTF-8; moves `index` behind it.
inline char32_t next_code_point(std::string_view text, size_t& index) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[index + i]); };
  const size_t length = utf8_length(text[index]);
  char32_t code = byte(0);
  if (length == 2) code = (code & 0x1F) << 6 | (byte(1) & 0x3F);
  if (length == 3) code = (code & 0x0F) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3F);
  if (length == 4) {
    code =
        (code & 0x07) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3F);
  }
  index += length;
  return code;
}

// Where the character before `index` starts, in valid UTF-8 and for index > 0.
inline size_t previous_code_point(std::string_view text, size_t index) {
  do --index;
  while (index > 0 && is_utf8_continuation(text[index]));
  return index;
}

void append_utf8(char32_t code, std::string& out);

}  // namespace qlora
