// Letters without regard to case in the regular expressions of pre-tokenizers, (?i:...), by the
// program's own list.
#pragma once

#include <vector>

namespace qlora::data {

// A letter matches the others that fold to the same one, and some that fold to two. Whether the
// list knows what these are: the letter is of ASCII or a common one of Latin and Cyrillic, or the
// character has no case.
bool folds_alike(char32_t code);

// The characters that fold to the same one, the character itself among them; of those that
// folds_alike().
std::vector<char32_t> same_fold(char32_t code);

// Whether one character folds to these two letters of ASCII, as U+00DF does to "ss".
bool folds_to_one(char first, char second);

}  // namespace qlora::data
