// Letters without regard to case in the regular expressions of pre-tokenizers, (?i:...).
#pragma once

namespace qlora::data {

// A letter matches the others that fold to the same one, and some that fold to two. Whether all
// versions of Unicode agree what these are: the letter is of ASCII or a common one of Latin and
// Cyrillic, or the character has no case.
bool folds_alike(char32_t code);

// Whether one character folds to these two letters of ASCII, as U+00DF does to "ss".
bool folds_to_one(char first, char second);

}  // namespace qlora::data
