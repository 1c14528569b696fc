// Upper, lower and title case of whole texts, as Python's str methods give them.
#pragma once

#include <string>
#include <string_view>

namespace qlora::data::jinja {

std::string upper_case(std::string_view text);
std::string lower_case(std::string_view text);
std::string capitalize(std::string_view text);  // the first character big, the others small
std::string title_case(std::string_view text);  // so every run of letters

bool is_cased(char32_t code);
bool is_upper(char32_t code);
bool is_lower(char32_t code);
bool is_alphabetic(char32_t code);
bool is_digit(char32_t code);  // str.isdigit: what is a digit by its own

}  // namespace qlora::data::jinja
