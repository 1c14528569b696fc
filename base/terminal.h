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

// The columns that a text takes: two for a character of Chinese, Japanese or Korean and for emoji,
// none for a combining mark, one for any other, and for a byte that is no UTF-8.
size_t columns_of_text(std::string_view text);

// As many of the text's first characters as fit into `columns`.
std::string_view beginning_in_columns(std::string_view text, size_t columns);

// `text`, with "..." in place of characters in its middle if it is wider than `columns`.
std::string without_middle(std::string_view text, size_t columns);

// `text` with line breaks instead of the spaces where a line would be longer than `width` columns;
// what follows is indented like its line and `indent` spaces more. Words are never broken. 0: no
// bound. Columns are those of columns_of_text().
std::string wrapped(std::string_view text, size_t width, size_t indent = 2);

// A line of a list: `left`, and from `column` on `right`, wrapped there and on a line of its own if
// `left` reaches that far; with a newline at the end.
std::string list_line(std::string_view left, std::string_view right, size_t column, size_t width);

}  // namespace qlora
