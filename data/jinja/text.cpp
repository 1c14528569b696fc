#include "data/jinja/text.h"

#include <algorithm>

#include "base/utf8.h"
#include "data/tokenizers/unicode.h"

namespace qlora::data::jinja {

TextRef make_text(std::string bytes, bool markup) {
  const size_t length = count_code_points(bytes);
  return std::make_shared<const Text>(Text{std::move(bytes), length, markup});
}

size_t count_code_points(std::string_view bytes) {
  return static_cast<size_t>(
      std::count_if(bytes.begin(), bytes.end(), [](char c) { return !is_utf8_continuation(c); }));
}

std::u32string to_code_points(std::string_view bytes) {
  std::u32string result;
  result.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) result.push_back(next_code_point(bytes, i));
  return result;
}

std::string to_bytes(std::u32string_view code_points) {
  std::string result;
  result.reserve(code_points.size());
  for (const char32_t code : code_points) append_utf8(code, result);
  return result;
}

size_t byte_offset(const Text& text, size_t index) {
  if (text.is_ascii()) return index;
  size_t offset = 0;
  while (index-- > 0) offset += utf8_length(text.bytes[offset]);
  return offset;
}

size_t code_point_index(const Text& text, size_t byte_offset) {
  if (text.is_ascii()) return byte_offset;
  return count_code_points(std::string_view(text.bytes).substr(0, byte_offset));
}

std::string slice_text(const Text& text, int64_t begin, int64_t end, int64_t step) {
  if (step == 1) {
    if (begin >= end) return "";
    const size_t from = byte_offset(text, static_cast<size_t>(begin));
    const size_t to = byte_offset(text, static_cast<size_t>(end));
    return text.bytes.substr(from, to - from);
  }
  const std::u32string code_points = to_code_points(text.bytes);
  std::u32string picked;
  for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
    picked.push_back(code_points[static_cast<size_t>(i)]);
    if (step > 0 ? i > INT64_MAX - step : i < INT64_MIN - step) break;
  }
  return to_bytes(picked);
}

bool is_python_space(char32_t code) {
  return (code >= 0x1C && code <= 0x1F) || is_white_space(code);
}

std::string_view strip(std::string_view bytes, bool left, bool right,
                       const std::u32string* removable) {
  const auto goes = [&](char32_t code) {
    return removable ? removable->find(code) != std::u32string::npos : is_python_space(code);
  };
  while (left && !bytes.empty()) {
    size_t next = 0;
    if (!goes(next_code_point(bytes, next))) break;
    bytes.remove_prefix(next);
  }
  while (right && !bytes.empty()) {
    const size_t last = previous_code_point(bytes, bytes.size());
    size_t next = last;
    if (!goes(next_code_point(bytes, next))) break;
    bytes = bytes.substr(0, last);
  }
  return bytes;
}

std::vector<std::string> split_lines(std::string_view bytes, bool keep_ends) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t i = 0; i < bytes.size();) {
    const size_t at = i;
    const char32_t code = next_code_point(bytes, i);
    const bool ends = (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) ||
                      code == 0x85 || code == 0x2028 || code == 0x2029;
    if (!ends) continue;
    if (code == '\r' && i < bytes.size() && bytes[i] == '\n') ++i;
    lines.emplace_back(bytes.substr(begin, (keep_ends ? i : at) - begin));
    begin = i;
  }
  if (begin < bytes.size()) lines.emplace_back(bytes.substr(begin));
  return lines;
}

namespace {

// Python puts `to` before every character and at the end when `from` is empty.
std::string insert_between(std::string_view bytes, std::string_view to, int64_t limit) {
  std::string result;
  size_t i = 0;
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    result += to;
    if (i == bytes.size()) return result;
    const size_t length = utf8_length(bytes[i]);
    result += bytes.substr(i, length);
    i += length;
  }
  return result.append(bytes.substr(i));
}

}  // namespace

std::string replace_text(std::string_view bytes, std::string_view from, std::string_view to,
                         int64_t limit) {
  if (from.empty()) return insert_between(bytes, to, limit);
  std::string result;
  size_t begin = 0;
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    const size_t found = bytes.find(from, begin);
    if (found == std::string_view::npos) break;
    result.append(bytes.substr(begin, found - begin)).append(to);
    begin = found + from.size();
  }
  return result.append(bytes.substr(begin));
}

std::string escape_html(std::string_view bytes) {
  std::string result;
  result.reserve(bytes.size());
  for (const char c : bytes) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '\'':
        result += "&#39;";
        break;
      case '"':
        result += "&#34;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

}  // namespace qlora::data::jinja
