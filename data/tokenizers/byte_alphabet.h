// The alphabet of byte-level BPE: each byte has a printable character of its own.
//
// Bytes 33-126, 161-172 and 174-255 are the characters of the same number; the other 68, in
// ascending order, are U+0100, U+0101, ...: a blank is U+0120, a newline U+010A. (GPT-2, Radford et
// al. 2019.)
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qlora::data {

// Appends the characters that stand for these bytes.
void append_byte_letters(std::string_view bytes, std::string& out);

// The byte that a character stands for, if it is a letter of the alphabet.
std::optional<unsigned char> byte_of_letter(char32_t letter);

// The bytes that `token` (valid UTF-8) stands for; nothing if it has a character outside of the
// alphabet.
std::optional<std::string> bytes_of_letters(std::string_view token);

}  // namespace qlora::data
