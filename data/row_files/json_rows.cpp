// JSON Lines, one row a line; or one JSON array of rows, held in memory as text.
#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "data/data_file.h"
#include "data/exact_json.h"
#include "data/row_files/row_file.h"
#include "io/json_fault.h"

namespace qlora::data {
namespace {

// Rows are shallow; a deeper one is no data but an attempt on the stack of whoever walks it.
constexpr int kDeepest = 200;
constexpr std::string_view kSpace = " \t\r\n";

// Follows JSON text just far enough to tell where a value ends: brackets outside strings.
class BracketScanner {
 public:
  // True if `c` lies outside every bracket and string of the value.
  bool at_top(char c) {
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else {
        in_string_ = c != '"';
      }
      return false;
    }
    in_string_ = c == '"';
    const bool top = depth_ == 0;
    if (c == '[' || c == '{') deepest_ = std::max(deepest_, ++depth_);
    if (c == ']' || c == '}') --depth_;
    return top && !in_string_;
  }
  int deepest() const { return deepest_; }

 private:
  int depth_ = 0, deepest_ = 0;
  bool in_string_ = false, escaped_ = false;
};

// The first row of a file tells best what is wrong with the whole file.
Json parse_first_row(std::string_view text, const std::string& path, const std::string& place) {
  try {
    return parse_json_row(text, place);
  } catch (const FormatError&) {
    if (const std::string fault = whole_file_fault(path); !fault.empty())
      fail<FormatError>("{} {}", path, fault);
    throw;
  }
}

class JsonLines final : public RowFile {
 public:
  explicit JsonLines(io::ByteReader bytes) : bytes_(std::move(bytes)) {}

  bool next(SourceRow& row) override {
    while (bytes_.line(text_)) {
      row.line = ++line_;
      if (text_.find_first_not_of(kSpace) == std::string::npos) continue;
      row.location = fmt::format("{}:{}", bytes_.path(), line_);
      row.value = is_first_ ? parse_first_row(text_, bytes_.path(), row.location)
                            : parse_json_row(text_, row.location);
      is_first_ = false;
      return true;
    }
    return false;
  }

 private:
  io::ByteReader bytes_;
  std::string text_;
  int64_t line_ = 0;
  bool is_first_ = true;
};

class JsonArray final : public RowFile {
 public:
  explicit JsonArray(io::ByteReader bytes) : path_(bytes.path()), text_(bytes.rest()) {
    position_ = text_.find('[') + 1;
    line_ += lines_in(0, position_);
    has_lines_ = lines_in(position_, text_.find_last_not_of(kSpace) + 1) > 0;
  }

  bool next(SourceRow& row) override {
    if (ended_) return false;
    const size_t first = std::min(text_.find_first_not_of(kSpace, position_), text_.size());
    const size_t end = end_of_element(first);
    line_ += lines_in(position_, first);
    ended_ = text_[end] == ']';
    if (ended_ && text_.find_first_not_of(kSpace, end + 1) != std::string::npos)
      fail<FormatError>("{}: nothing may follow the array of rows", path_);
    if (ended_ && first == end && is_first_) return false;  // []
    is_first_ = false;
    row.line = line_;
    row.location = place();
    row.value = parse_json_row(std::string_view(text_).substr(first, end - first), row.location);
    line_ += lines_in(first, end);
    position_ = end + 1;
    ++index_;
    return true;
  }

 private:
  // Of the element: "rows.json, row 28", and if the array has several lines "rows.json:85, row 28".
  std::string place() const {
    return has_lines_ ? fmt::format("{}:{}, row {}", path_, line_, index_)
                      : fmt::format("{}, row {}", path_, index_);
  }
  int64_t lines_in(size_t begin, size_t end) const {
    return std::count(text_.begin() + static_cast<ptrdiff_t>(begin),
                      text_.begin() + static_cast<ptrdiff_t>(end), '\n');
  }
  // Where the comma or bracket behind the element stands.
  size_t end_of_element(size_t first) const {
    BracketScanner scanner;
    for (size_t end = first; end < text_.size(); ++end)
      if (scanner.at_top(text_[end]) && (text_[end] == ',' || text_[end] == ']')) return end;
    fail<FormatError>("{}: the array of rows must end with ']', the file ends before", place());
  }

  std::string path_, text_;
  size_t position_ = 0;           // in the text
  int64_t line_ = 1, index_ = 0;  // of the element; lines from 1, elements from 0
  bool has_lines_ = false, is_first_ = true, ended_ = false;
};

}  // namespace

Json parse_json_row(std::string_view text, const std::string& place, const char* what) {
  BracketScanner scanner;
  for (const char c : text) scanner.at_top(c);
  if (scanner.deepest() > kDeepest)
    fail<FormatError>("{}: a {} may nest {} deep, found {}", place, what, kDeepest,
                      scanner.deepest());
  try {
    return exact_json(text);
  } catch (const Json::exception& error) {
    fail<FormatError>("{}: not valid JSON{}", place, io::json_fault_in(what, text, error));
  }
}

std::unique_ptr<RowFile> open_json_rows(io::ByteReader bytes) {
  size_t looked_at = 1;
  std::string_view head = bytes.peek(looked_at);
  while (head.size() == looked_at && kSpace.find(head.back()) != std::string_view::npos)
    head = bytes.peek(++looked_at);
  const bool is_array = head.size() == looked_at && head.back() == '[';
  if (is_array) return std::make_unique<JsonArray>(std::move(bytes));
  return std::make_unique<JsonLines>(std::move(bytes));
}

}  // namespace qlora::data
