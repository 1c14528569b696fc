// Names from outside (of files, directories, modules) in the text of a card: in commands that
// readers paste into a shell, in Python and in Markdown. Each is on one line, and control
// characters are spelled out (base/shown_text.h). Plain names stay as they are.
#pragma once

#include <string>

namespace qlora::exporting {

// One word of a POSIX shell: in single quotes if it has other characters than letters, digits and
// @%+=:,./_-, or none.
std::string shell_word(const std::string& text);

// A literal of Python, with its double quotes.
std::string python_text(const std::string& text);

// As words of a heading or a sentence, in which it marks nothing up.
std::string markdown_text(const std::string& text);

// As code in a sentence: between as many backticks as it needs.
std::string code_span(const std::string& text);

}  // namespace qlora::exporting
