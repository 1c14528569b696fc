// What Python 3.13 (Unicode 15.1) says of each character, asked by scripts/unicode_tables.py: the
// methods of strings in templates, whichever libraries are installed.
#pragma once

#include "data/tokenizers/unicode_tables.h"

namespace qlora::data::jinja::python_text_tables {

// Bits of kProperties: what str.isalpha() and its sisters say of the character alone.
constexpr uint8_t kAlpha = 1, kDecimal = 2, kDigit = 4, kNumeric = 8, kLowerCase = 16,
                  kUpperCase = 32, kPrintable = 64, kTitleCase = 128;

extern const std::span<const unicode_tables::Run> kProperties;
extern const std::span<const unicode_tables::Run> kCaseIgnorable;  // 0 or 1
extern const unicode_tables::Texts kUpper, kLower, kTitle;  // str.upper(), ... of one character

}  // namespace qlora::data::jinja::python_text_tables
