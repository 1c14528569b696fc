#include "data/row_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "base/error.h"
#include "io/json_text.h"

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

Json parse_row(std::string_view text, const std::string& path, int64_t line) {
  BracketScanner scanner;
  for (const char c : text) scanner.at_top(c);
  if (scanner.deepest() > kDeepest) {
    fail<FormatError>("{}:{}: a row may nest {} deep, found {}", path, line, kDeepest,
                      scanner.deepest());
  }
  try {
    return io::ordered_json_from_text(text);
  } catch (const Json::parse_error& error) {
    fail<FormatError>("{}:{}: not valid JSON at byte {} of the row ({})", path, line, error.byte,
                      std::string_view(error.what()).substr(0, 200));
  }
}

}  // namespace

struct RowSource::State {
  std::string path;
  std::ifstream file;  // of JSON Lines
  bool is_lines = false;
  std::string text;     // of an array or a text file
  size_t position = 0;  // in `text`
  int64_t line = 1, rows = 0;
  bool ended = false;

  void open_array();
  bool next_line(SourceRow& row);
  bool next_element(SourceRow& row);
};

void RowSource::State::open_array() {
  text.assign(std::istreambuf_iterator<char>(file), {});
  position = text.find('[') + 1;
  line += std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(position), '\n');
}

bool RowSource::State::next_line(SourceRow& row) {
  std::string bytes;
  while (std::getline(file, bytes)) {
    const int64_t number = line++;
    if (bytes.find_first_not_of(kSpace) == std::string::npos) continue;
    row = {parse_row(bytes, path, number), rows++, number};
    return true;
  }
  if (file.bad()) fail<IoError>("{}: reading failed ({})", path, std::strerror(errno));
  return false;
}

bool RowSource::State::next_element(SourceRow& row) {
  const size_t first = std::min(text.find_first_not_of(kSpace, position), text.size());
  BracketScanner scanner;
  size_t end = first;
  while (end < text.size() &&
         !(scanner.at_top(text[end]) && (text[end] == ',' || text[end] == ']'))) {
    ++end;
  }
  if (end == text.size()) {
    fail<FormatError>("{}:{}: the array of rows must end with ']', the file ends before", path,
                      line);
  }
  const auto begin = text.begin();
  line += std::count(begin + static_cast<ptrdiff_t>(position),
                     begin + static_cast<ptrdiff_t>(first), '\n');
  ended = text[end] == ']';
  if (ended && text.find_first_not_of(kSpace, end + 1) != std::string::npos) {
    fail<FormatError>("{}: nothing may follow the array of rows", path);
  }
  if (ended && first == end && rows == 0) return false;  // []
  row = {parse_row(std::string_view(text).substr(first, end - first), path, line), rows++, line};
  line +=
      std::count(begin + static_cast<ptrdiff_t>(first), begin + static_cast<ptrdiff_t>(end), '\n');
  position = end + 1;
  return true;
}

RowSource::RowSource(const DatasetOptions& dataset) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = dataset.path;
  std::error_code ignored;
  if (std::filesystem::is_directory(dataset.path, ignored)) {
    fail<ConfigError>("{}: a dataset must be a file, this is a directory", dataset.path);
  }
  state.file.open(dataset.path, std::ios::binary);
  if (!state.file) {
    fail<ConfigError>("{}: the dataset cannot be opened ({})", dataset.path, std::strerror(errno));
  }
  if (dataset.format == "text" && std::filesystem::path(dataset.path).extension() == ".txt") {
    state.text.assign(std::istreambuf_iterator<char>(state.file), {});
    return;
  }
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  char mark[3] = {};
  state.file.read(mark, 3);
  state.file.clear();
  const bool marked = std::string_view(mark, 3) == kByteOrderMark;
  const auto start = marked ? std::streamoff{3} : std::streamoff{0};
  state.file.seekg(start);
  char first = ' ';
  while (kSpace.find(first) != std::string_view::npos && state.file.get(first)) {
  }
  state.file.clear();
  state.file.seekg(start);
  state.is_lines = first != '[';
  if (!state.is_lines) state.open_array();
}

RowSource::~RowSource() = default;

std::vector<SourceRow> RowSource::next(int64_t count) {
  std::vector<SourceRow> rows;
  State& state = *state_;
  const bool is_text = !state.is_lines && state.position == 0;
  while (!state.ended && static_cast<int64_t>(rows.size()) < count) {
    SourceRow row;
    bool found = true;
    if (is_text) {
      found = !state.text.empty();
      row.value = Json{{"text", std::move(state.text)}};
      row.line = 1;
      state.ended = true;
    } else {
      found = state.is_lines ? state.next_line(row) : state.next_element(row);
    }
    if (!found) {
      state.ended = true;
      break;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string row_location(const std::string& path, const SourceRow& row) {
  return fmt::format("{}:{}", path, row.line);
}

}  // namespace qlora::data
