#include "base/utf8.h"

#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace qlora {
namespace {

constexpr size_t kMostContinuations = 3;  // bytes of a character after its first

// What stands at `index`: a whole character, or how many bytes of one before it breaks off.
struct Sequence {
  bool valid;
  size_t length;  // at least 1
};

Sequence sequence_at(std::string_view text, size_t index) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[index + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {true, 1};
  if (first < 0xC2 || first > 0xF4) return {false, 1};
  const size_t length = utf8_length(text[index]);
  // The second byte rules out overlong forms, surrogates and what lies above U+10FFFF.
  unsigned char low = 0x80, high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (index + i >= text.size() || byte(i) < low || byte(i) > high) return {false, i};
    low = 0x80, high = 0xBF;
  }
  return {true, length};
}

}  // namespace

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  size_t index = 0;
  while (index < text.size()) {
    uint64_t word;
    while (index + sizeof word <= text.size()) {  // eight ASCII bytes at a time
      std::memcpy(&word, text.data() + index, sizeof word);
      if (word & 0x8080808080808080u) break;
      index += sizeof word;
    }
    if (index == text.size()) break;
    const Sequence sequence = sequence_at(text, index);
    if (!sequence.valid) return index;
    index += sequence.length;
  }
  return std::nullopt;
}

void check_utf8(std::string_view text, std::string_view what) {
  const auto offset = find_invalid_utf8(text);
  if (!offset) return;
  fail<FormatError>("{} must be valid UTF-8, but the byte 0x{:02X} at offset {} is not", what,
                    static_cast<unsigned char>(text[*offset]), *offset);
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t index = 0; index < text.size();) {
    const Sequence sequence = sequence_at(text, index);
    if (sequence.valid) {
      out.append(text.substr(index, sequence.length));
    } else {
      out += "\xEF\xBF\xBD";
    }
    index += sequence.length;
  }
  return out;
}

size_t whole_utf8_character(std::string_view text, size_t index) {
  const Sequence sequence = sequence_at(text, index);
  return sequence.valid ? sequence.length : 0;
}

std::string_view utf8_beginning(std::string_view text, size_t longest) {
  if (text.size() <= longest) return text;
  size_t end = longest;
  while (end > 0 && longest - end < kMostContinuations && is_utf8_continuation(text[end])) --end;
  return text.substr(0, end);
}

std::string_view utf8_end(std::string_view text, size_t longest) {
  if (text.size() <= longest) return text;
  const size_t earliest = text.size() - longest;
  size_t begin = earliest;
  while (begin < text.size() && begin - earliest < kMostContinuations &&
         is_utf8_continuation(text[begin]))
    ++begin;
  return text.substr(begin);
}

std::string utf8_around(std::string_view text, size_t index, size_t longest) {
  const size_t last = text.size() - std::min(longest, text.size());  // from where all goes in
  const size_t wanted = std::min(index - std::min(longest / 2, index), last);
  const std::string_view rest = utf8_end(text, text.size() - wanted);
  const std::string_view part = utf8_beginning(rest, longest);
  return (rest.size() < text.size() ? "..." : "") + std::string(part) +
         (part.size() < rest.size() ? "..." : "");
}

std::string shortened_utf8(const std::string& text, size_t longest) {
  if (text.size() <= longest) return text;
  return std::string(utf8_beginning(text, longest)) + "...";
}

void append_utf8(char32_t code, std::string& out) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  }
}

}  // namespace qlora
