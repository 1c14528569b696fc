#include "data/row_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"
#include "data/data_file.h"
#include "data/exact_json.h"

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

// Where JSON ends to be JSON, and what people write instead of it.
std::string fault_of_json(std::string_view text, const Json::exception& error) {
  if (const auto invalid = find_invalid_utf8(text))
    return fmt::format(": byte {} of the row is not UTF-8", *invalid + 1);
  const auto* parse_error = dynamic_cast<const Json::parse_error*>(&error);
  if (parse_error == nullptr) return ": a number is too large";
  constexpr size_t kShown = 20;
  const size_t byte = std::clamp<size_t>(parse_error->byte, 1, text.size() + 1);
  if (byte > text.size()) return ": the row ends before its last bracket or quote is closed";
  const size_t begin = byte - 1 > kShown ? byte - 1 - kShown : 0;
  const std::string_view before = text.substr(begin, byte - 1 - begin),
                         rest = text.substr(byte - 1);
  const std::string place =
      fmt::format(" at byte {} of the row, {}'{}'", byte,
                  before.empty() ? "" : fmt::format("behind '{}': ", replace_invalid_utf8(before)),
                  replace_invalid_utf8(rest.substr(0, kShown)));
  if (rest.starts_with("NaN") || rest.starts_with("Infinity"))
    return place + "; JSON has no NaN or Infinity: write null";
  if (rest.starts_with('\'')) return place + "; in JSON texts stand in double quotes";
  if (rest.starts_with("True") || rest.starts_with("False") || rest.starts_with("None"))
    return place + "; JSON writes true, false and null";
  return place;
}

Json parse_row(std::string_view text, const std::string& path, int64_t line) {
  BracketScanner scanner;
  for (const char c : text) scanner.at_top(c);
  if (scanner.deepest() > kDeepest) {
    fail<FormatError>("{}:{}: a row may nest {} deep, found {}", path, line, kDeepest,
                      scanner.deepest());
  }
  try {
    return exact_json(text);
  } catch (const Json::exception& error) {
    fail<FormatError>("{}:{}: not valid JSON{}", path, line, fault_of_json(text, error));
  }
}

void open_dataset(const std::string& path, std::ifstream& file) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    fail<ConfigError>("{}: a dataset must be a file of rows, this is a directory", path);
  }
  for (const char* scheme : {"https:/", "http:/", "s3:/", "hf:/"}) {
    if (path.find(scheme) == std::string::npos) continue;
    fail<ConfigError>("{}: a dataset must be a file; nothing is downloaded, so fetch it first",
                      path);
  }
  file.open(path, std::ios::binary);
  if (!file) {
    fail<ConfigError>("{}: the dataset cannot be opened ({})", path, std::strerror(errno));
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

  void open(bool is_text);
  void open_array();
  Json parse_first_row(const std::string& bytes, int64_t number) const;
  bool next_line(SourceRow& row);
  bool next_element(SourceRow& row);
};

void RowSource::State::open_array() {
  text.assign(std::istreambuf_iterator<char>(file), {});
  position = text.find('[') + 1;
  line += std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(position), '\n');
}

Json RowSource::State::parse_first_row(const std::string& bytes, int64_t number) const {
  try {
    return parse_row(bytes, path, number);
  } catch (const FormatError&) {
    if (const std::string fault = whole_file_fault(path); !fault.empty())
      fail<FormatError>("{} {}", path, fault);
    throw;
  }
}

bool RowSource::State::next_line(SourceRow& row) {
  std::string bytes;
  while (std::getline(file, bytes)) {
    const int64_t number = line++;
    if (bytes.find_first_not_of(kSpace) == std::string::npos) continue;
    row = {rows == 0 ? parse_first_row(bytes, number) : parse_row(bytes, path, number), rows,
           number};
    ++rows;
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

void RowSource::State::open(bool is_text) {
  open_dataset(path, file);
  std::string head(4096, '\0');
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<size_t>(file.gcount()));
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  const size_t start = head.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  check_first_bytes(path, std::string_view(head).substr(start), !is_text);
  file.clear();
  file.seekg(static_cast<std::streamoff>(start));
}

RowSource::RowSource(const DatasetOptions& dataset) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = dataset.path;
  const bool is_text =
      dataset.format == "text" && std::filesystem::path(dataset.path).extension() == ".txt";
  state.open(is_text);
  if (is_text) {
    state.text.assign(std::istreambuf_iterator<char>(state.file), {});
    return;
  }
  const std::streamoff start = state.file.tellg();
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

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code missing;
  return std::filesystem::equivalent(a, b, missing) && !missing;
}

std::string row_location(const std::string& path, const SourceRow& row) {
  return fmt::format("{}:{}", path, row.line);
}

}  // namespace qlora::data
