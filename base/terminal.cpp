#include "base/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/utf8.h"

namespace qlora {
namespace {

using Range = std::pair<char32_t, char32_t>;

// Combining marks and other characters that take no column of their own.
constexpr Range kNoColumn[] = {
    {0x0300, 0x036F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
// East Asian characters, wide by Unicode's EastAsianWidth.txt, and emoji.
constexpr Range kTwoColumns[] = {
    {0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0x4DBF},   {0x4E00, 0xA4CF},  {0xA960, 0xA97F},
    {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},  {0xFFE0, 0xFFE6},
    {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};

template <size_t N>
bool lies_in(const Range (&ranges)[N], char32_t code) {
  return std::ranges::any_of(
      ranges, [&](const Range& range) { return range.first <= code && code <= range.second; });
}

struct Character {
  size_t bytes = 1, columns = 1;
};

// A byte that is no UTF-8 is shown as one character.
Character character_at(std::string_view text, size_t index) {
  const size_t bytes = whole_utf8_character(text, index);
  if (bytes == 0) return {};
  const char32_t code = next_code_point(text, index);
  return {bytes, lies_in(kNoColumn, code) ? 0U : lies_in(kTwoColumns, code) ? 2U : 1U};
}

std::string_view cut_until(std::string_view& text, char end) {
  const size_t length = std::min(text.find(end), text.size());
  const std::string_view part = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return part;
}

// One line of the text, its words filled into lines.
void wrap_line(std::string_view line, size_t width, size_t indent, std::string& out) {
  if (columns_of_text(line) <= width) {
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
    if (begun && column + spaces + columns_of_text(word) > width) {
      out += "\n" + next_begin;
      column = next_begin.size();
    } else {
      out.append(spaces, ' ');
      column += spaces;
    }
    out += word;
    column += columns_of_text(word);
    begun = true;
    spaces = 1;
    for (; !line.empty() && line.front() == ' '; line.remove_prefix(1)) ++spaces;
  }
}

}  // namespace

size_t columns_of_text(std::string_view text) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size();) {
    const Character character = character_at(text, i);
    columns += character.columns;
    i += character.bytes;
  }
  return columns;
}

std::string_view beginning_in_columns(std::string_view text, size_t columns) {
  size_t used = 0;
  for (size_t i = 0; i < text.size();) {
    const Character character = character_at(text, i);
    used += character.columns;
    if (used > columns) return text.substr(0, i);
    i += character.bytes;
  }
  return text;
}

std::string without_middle(std::string_view text, size_t columns) {
  constexpr std::string_view kGap = "...";
  size_t too_many = columns_of_text(text);
  if (too_many <= columns) return std::string(text);
  if (columns <= kGap.size()) return std::string(beginning_in_columns(text, columns));
  const std::string_view begin = beginning_in_columns(text, (columns - kGap.size()) / 2);
  too_many += kGap.size() - columns;
  size_t end = begin.size();
  for (size_t cut = 0; end < text.size() && cut < too_many;) {
    const Character character = character_at(text, end);
    cut += character.columns;
    end += character.bytes;
  }
  return fmt::format("{}{}{}", begin, kGap, text.substr(end));
}

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
  std::string line = columns_of_text(left) + 1 < column ? fmt::format("{:<{}}", left, column)
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
