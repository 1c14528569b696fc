// Character classes and normal forms of Unicode, from the program's own tables (unicode_tables.h).
#pragma once

#include <string>
#include <string_view>

namespace qlora::data {

bool is_white_space(char32_t code);  // property White_Space
bool is_number(char32_t code);       // categories Nd, Nl, No
bool is_punctuation(char32_t code);  // categories P*, and every ASCII punctuation sign
// Letters (also in circles), marks, numbers of category Nd and Nl, connectors, joiners: \w of
// Unicode Technical Standard 18.
bool is_word_character(char32_t code);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` (valid UTF-8) in a normal form of Unicode Standard Annex 15.
std::string to_normal_form(std::string_view text, NormalForm form);

// Each character's lower case on its own, without rules that look at its neighbours.
std::string to_lower_case(std::string_view text);

}  // namespace qlora::data
