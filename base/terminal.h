// What the terminal behind stdout or stderr shows: how wide it is, whether it takes colour, and
// text that breaks between words there.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace qlora {

// Columns: COLUMNS of the environment if it is a number above 0, else those of the terminal; 0
// where `file` is none.
size_t terminal_width(std::FILE* file);

// A terminal that knows colours, and no NO_COLOR in the environment (https://no-color.org).
bool takes_colour(std::FILE* file);

// `text` with line breaks instead of the spaces where a line would be longer than `width` columns;
// what follows is indented like its line and `indent` spaces more. Words are never broken. 0: no
// bound. A character of UTF-8 counts as one column.
std::string wrapped(std::string_view text, size_t width, size_t indent = 2);

// A line of a list: `left`, and from `column` on `right`, wrapped there and on a line of its own if
// `left` reaches that far; with a newline at the end.
std::string list_line(std::string_view left, std::string_view right, size_t column, size_t width);

}  // namespace qlora
