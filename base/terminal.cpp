#include "base/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/utf8.h"

namespace qlora {
namespace {

size_t columns_of(std::string_view text) {
  size_t columns = 0;
  for (const char c : text) columns += !is_utf8_continuation(c);
  return columns;
}

std::string_view cut_until(std::string_view& text, char end) {
  const size_t length = std::min(text.find(end), text.size());
  const std::string_view part = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return part;
}

// One line of the text, its words filled into lines.
void wrap_line(std::string_view line, size_t width, size_t indent, std::string& out) {
  if (columns_of(line) <= width) {
    out += line;
    return;
  }
  const size_t first_word = std::min(line.find_first_not_of(' '), line.size());
  const std::string begin(first_word, ' '), next_begin(first_word + indent, ' ');
  out += begin;
  size_t column = first_word, spaces = 0;
  bool begun = false;
  for (line.remove_prefix(first_word); !line.empty();) {
    const std::string_view word = cut_until(line, ' ');
    if (begun && column + spaces + columns_of(word) > width) {
      out += "\n" + next_begin;
      column = next_begin.size();
    } else {
      out.append(spaces, ' ');
      column += spaces;
    }
    out += word;
    column += columns_of(word);
    begun = true;
    spaces = 1;
    for (; !line.empty() && line.front() == ' '; line.remove_prefix(1)) ++spaces;
  }
}

}  // namespace

size_t terminal_width(std::FILE* file) {
  const char* columns = std::getenv("COLUMNS");
  if (const long given = columns ? std::strtol(columns, nullptr, 10) : 0; given > 0)
    return static_cast<size_t>(given);
  winsize size{};
  return ioctl(fileno(file), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

bool takes_colour(std::FILE* file) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return isatty(fileno(file)) == 1 && (no_colour == nullptr || *no_colour == '\0') &&
         terminal != nullptr && std::strcmp(terminal, "dumb") != 0;
}

std::string wrapped(std::string_view text, size_t width, size_t indent) {
  if (width == 0) return std::string(text);
  std::string out;
  while (!text.empty()) {
    const bool more = text.find('\n') != std::string_view::npos;
    wrap_line(cut_until(text, '\n'), width, indent, out);
    if (more) out += '\n';
  }
  return out;
}

std::string list_line(std::string_view left, std::string_view right, size_t column, size_t width) {
  constexpr size_t kNarrowest = 20;  // of what stands on the right
  if (right.empty()) return fmt::format("{}\n", left);
  const std::string next_line = fmt::format("\n{:<{}}", "", column);
  std::string line = columns_of(left) + 1 < column ? fmt::format("{:<{}}", left, column)
                                                   : fmt::format("{}{}", left, next_line);
  const size_t room = width == 0 ? 0 : std::max(width - std::min(width, column), kNarrowest);
  for (const char c : wrapped(right, room, 0)) {
    if (c == '\n')
      line += next_line;
    else
      line += c;
  }
  return line + "\n";
}

}  // namespace qlora
