// Kinds of characters, and upper, lower and title case of whole texts, as Python's str methods give
// them.
#pragma once

#include <string>
#include <string_view>

namespace qlora::data::jinja {

std::string upper_case(std::string_view text);
std::string lower_case(std::string_view text);
std::string swap_case(std::string_view text);
std::string capitalize(std::string_view text);  // the first character big, the others small
std::string title_case(std::string_view text);  // so every run of letters
bool is_title(std::string_view text);           // str.istitle

bool is_cased(char32_t code);
bool is_upper(char32_t code);
bool is_lower(char32_t code);
bool is_alphabetic(char32_t code);    // str.isalpha
bool is_decimal(char32_t code);       // str.isdecimal: 0 to 9 of some script
bool is_digit(char32_t code);         // str.isdigit: also superscripts and digits in circles
bool is_numeric(char32_t code);       // str.isnumeric: also fractions, Roman and Chinese numerals
bool is_alphanumeric(char32_t code);  // str.isalnum
bool is_printable(char32_t code);     // str.isprintable: repr() writes it as it is

}  // namespace qlora::data::jinja
