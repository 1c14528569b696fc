// Regular expressions of a recipe or config, which a mixture of experts asks about each of its
// thousands of modules: compiled once, since that takes a hundred times as long as a match.
#pragma once

#include <regex>
#include <string>

namespace qlora {

// The regular expression of ECMAScript, as compiled when this thread first asked for it; good until
// the thread asks for another. std::regex_error if it is none.
const std::regex& compiled_pattern(const std::string& text);

// For messages: what is wrong with a pattern of the recipe that was refused with `error`. Of an
// asterisk that has nothing to repeat the library says that parentheses do not match.
std::string pattern_fault(const std::string& pattern, const std::regex_error& error);

}  // namespace qlora
