// Strings as Python source writes them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qlora::data::jinja {

struct BadEscape {
  size_t offset;  // into the text given to unescape
};

// The text between the quotes with its escapes resolved (\n, \x41, \u00e9, octal, ...); unknown
// escapes stay as they stand. Throws BadEscape at one that is cut short or names no character.
std::string unescape(std::string_view text);

// repr(str): quotes of the kind that occurs less, escapes for what cannot be printed.
void write_string_repr(std::string_view text, std::string& out);

}  // namespace qlora::data::jinja
