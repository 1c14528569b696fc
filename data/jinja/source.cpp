#include "data/jinja/source.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "data/jinja/text.h"

namespace qlora::data::jinja {
namespace {

constexpr size_t kMostBytes = 4 << 20;

std::string normalize_lines(const std::string& text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      result += text[i];
      continue;
    }
    result += '\n';
    if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

}  // namespace

Source::Source(const std::string& text, std::string name) : name_(std::move(name)) {
  if (text.size() > kMostBytes) {
    fail<FormatError>("{}: a template must have at most {} bytes, found {}", name_, kMostBytes,
                      text.size());
  }
  check_utf8(text, name_);
  text_ = normalize_lines(text);
}

Position Source::position_of(size_t offset) const {
  const std::string_view before = std::string_view(text_).substr(0, offset);
  const size_t line_end = before.rfind('\n');
  const size_t line_begin = line_end == std::string_view::npos ? 0 : line_end + 1;
  return {1 + static_cast<int>(std::count(before.begin(), before.end(), '\n')),
          1 + static_cast<int>(count_code_points(before.substr(line_begin)))};
}

std::string Source::excerpt(Position position) const {
  constexpr size_t kBefore = 40, kShown = 100;
  size_t begin = 0;
  for (int line = 1; line < position.line; ++line) begin = text_.find('\n', begin) + 1;
  const std::u32string line =
      to_code_points(std::string_view(text_).substr(begin, text_.find('\n', begin) - begin));
  const size_t column = std::min(static_cast<size_t>(position.column - 1), line.size());
  const size_t from = line.size() <= kShown || column <= kBefore ? 0 : column - kBefore;
  const std::u32string_view shown = std::u32string_view(line).substr(from, kShown);
  return (from > 0 ? "..." : "") + std::string(strip(to_bytes(shown), from == 0, true)) +
         (from + kShown < line.size() ? "..." : "");
}

void Source::fail_at(Position position, std::string_view message) const {
  fail<FormatError>("{}, line {}, column {}: {}; at: {}", name_, position.line, position.column,
                    message, excerpt(position));
}

}  // namespace qlora::data::jinja
