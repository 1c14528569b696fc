#include "data/jinja/split.h"

#include <algorithm>

#include "base/utf8.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

std::vector<std::string_view> split_from_right(std::string_view text, std::string_view separator,
                                               int64_t limit) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = text.rfind(separator);
    if (found == kNone) break;
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_at_space_from_right(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  for (text = strip(text, false, true); !text.empty(); text = strip(text, false, true)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const size_t before = previous_code_point(text, begin);
      size_t next = before;
      if (is_python_space(next_code_point(text, next))) break;
      begin = before;
    }
    parts.push_back(text.substr(begin));
    text = text.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator,
                                       int64_t limit, bool from_right) {
  if (from_right) return split_from_right(text, separator, limit);
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = text.find(separator);
    if (found == kNone) break;
    parts.push_back(text.substr(0, found));
    text.remove_prefix(found + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> split_at_space(std::string_view text, int64_t limit,
                                             bool from_right) {
  if (from_right) return split_at_space_from_right(text, limit);
  std::vector<std::string_view> parts;
  for (text = strip(text, true, false); !text.empty(); text = strip(text, true, false)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      // As in Python, white space at the end stays with the rest that is not split.
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (is_python_space(next_code_point(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

size_t count_text(std::string_view text, std::string_view wanted) {
  if (wanted.empty()) return count_code_points(text) + 1;
  size_t count = 0;
  for (size_t i = text.find(wanted); i != kNone; i = text.find(wanted, i + wanted.size())) ++count;
  return count;
}

Value replace_in(Runtime& runtime, const Value& text, const Value& from, const Value& to,
                 int64_t limit) {
  for (const Value* one : {&from, &to}) {
    if (one->is_undefined()) throw Failure(one->undefined_message());
    if (!one->is_text()) fail_render("replace needs strings, found {}", one->type_name());
  }
  runtime.charge(text.bytes().size() / 4);
  const size_t count = count_text(text.bytes(), from.bytes());
  const size_t limited = limit < 0 ? count : std::min(count, static_cast<size_t>(limit));
  const size_t added = to.bytes().size();
  if (limited > 0 && added > Limits::kTextBytes / limited) {
    runtime.expect_text(Limits::kTextBytes + 1);
  }
  runtime.expect_text(text.bytes().size() + limited * added);
  return runtime.text(replace_text(text.bytes(), from.bytes(), to.bytes(), limit),
                      text.is_markup());
}

}  // namespace qlora::data::jinja
