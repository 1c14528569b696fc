// The known word a mistyped one was probably meant to be.
#pragma once

#include <string>
#include <vector>

namespace qlora {

// Fewest insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal
// string alignment).
int edit_distance(const std::string& a, const std::string& b);

// The nearest of `known`, the first of equals; empty if none is near: at most one edit for every
// three letters and no more than three. Case, '-' and '_' do not count.
std::string nearest_word(const std::string& word, const std::vector<std::string>& known);

}  // namespace qlora
