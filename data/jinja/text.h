// Strings of a template: valid UTF-8 that counts and indexes in code points, as Python's str does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::data::jinja {

struct Text {
  std::string bytes;
  size_t length = 0;    // code points
  bool markup = false;  // markupsafe.Markup: what joins it by + is HTML-escaped first

  bool is_ascii() const { return length == bytes.size(); }
};
// Shared between the parsed template and all renders of it.
using TextRef = std::shared_ptr<const Text>;

TextRef make_text(std::string bytes, bool markup = false);

size_t count_code_points(std::string_view bytes);
std::u32string to_code_points(std::string_view bytes);
std::string to_bytes(std::u32string_view code_points);

// Where the code point `index` (0 <= index <= length) starts, in bytes; and back.
size_t byte_offset(const Text& text, size_t index);
size_t code_point_index(const Text& text, size_t byte_offset);

// Code points begin, begin + step, ... before (step < 0: behind) end; bounds already clipped.
std::string slice_text(const Text& text, int64_t begin, int64_t end, int64_t step);

// str.isspace of one character, which is also what \s matches and what strip() removes.
bool is_python_space(char32_t code);

// Removes from the left, right or both ends what `removable` says; nullptr: white space.
std::string_view strip(std::string_view bytes, bool left, bool right,
                       const std::u32string* removable = nullptr);

// str.splitlines: at \n \r \r\n \v \f, the ASCII separators and Unicode's own line ends.
std::vector<std::string> split_lines(std::string_view bytes, bool keep_ends);

// All of `from` by `to`, at most `limit` times if it is not negative; str.replace.
std::string replace_text(std::string_view bytes, std::string_view from, std::string_view to,
                         int64_t limit);

// & < > ' " as HTML entities; markupsafe.escape.
std::string escape_html(std::string_view bytes);

}  // namespace qlora::data::jinja
