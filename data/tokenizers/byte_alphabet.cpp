#include "data/tokenizers/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace qlora::data {
namespace {

constexpr int kNumLetters = 256 + 68;  // letters lie below this code point

struct Alphabet {
  std::array<char32_t, 256> letters;
  std::array<int16_t, kNumLetters> bytes;  // -1: no letter
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet{};
  for (auto& byte : alphabet.bytes) byte = -1;
  char32_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const char32_t letter = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.letters[byte] = letter;
    alphabet.bytes[letter] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

void append_byte_letters(std::string_view bytes, std::string& out) {
  for (const char c : bytes) {
    append_utf8(kAlphabet.letters[static_cast<unsigned char>(c)], out);
  }
}

std::optional<unsigned char> byte_of_letter(char32_t letter) {
  if (letter >= kNumLetters || kAlphabet.bytes[letter] < 0) return std::nullopt;
  return static_cast<unsigned char>(kAlphabet.bytes[letter]);
}

std::optional<std::string> bytes_of_letters(std::string_view token) {
  std::string bytes;
  for (size_t index = 0; index < token.size();) {
    const auto byte = byte_of_letter(next_code_point(token, index));
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
  }
  return bytes;
}

}  // namespace qlora::data
