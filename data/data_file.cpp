#include "data/data_file.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/utf8.h"
#include "data/readers/row.h"
#include "io/byte_reader.h"
#include "io/file_kind.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

constexpr const char* kToLines = "convert it to JSON Lines in UTF-8, one object a line";

std::string first_line(std::string_view bytes) {
  constexpr size_t kShown = 60;
  std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), bytes.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return replace_invalid_utf8(utf8_beginning(line, kShown));
}

void check_json_begins(const std::string& path, std::string_view bytes) {
  const size_t begin = bytes.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos || bytes[begin] == '{' || bytes[begin] == '[') return;
  const std::string line = first_line(bytes.substr(begin));
  const std::string extension = fs::path(path).extension().string();
  for (const char* columns : {".parquet", ".arrow", ".feather"})
    if (extension == columns)
      fail<FormatError>(
          "{} is not what its name says: it begins with '{}'; give a table a name that ends in "
          ".csv or .tsv, JSON Lines one that ends in .jsonl",
          path, line);
  if (line.find_first_of(",;\t|") != std::string::npos && line.find('"') == std::string::npos) {
    fail<FormatError>(
        "{} is no JSON; its first line '{}' looks like the head of a table; give it a "
        "name that ends in .csv (divided by commas) or .tsv (divided by tabs)",
        path, line);
  }
  fail<FormatError>(
      "{} must be JSON Lines, one object {{...}} a line, or one JSON array of objects, but begins "
      "with '{}'{}",
      path, line,
      extension == ".txt" || extension == ".md"
          ? "; plain text in a .txt file is read with format: text, as one row"
          : "");
}

}  // namespace

void check_first_bytes(const std::string& path, std::string_view bytes, RowText kind) {
  const size_t begin = std::min(bytes.find_first_not_of(" \t\r\n"), bytes.size());
  const bool is_page = bytes.substr(begin).starts_with('<');  // which may be text to train on
  const std::string found = io::kind_by_first_bytes(bytes);
  if (!found.empty() && (kind != RowText::kPlain || !is_page))
    fail<FormatError>("{} is {}", path,
                      found.starts_with("a zip archive") ? "a zip archive; unpack it" : found);
  if (const std::string wide = io::wide_text_kind(bytes); !wide.empty())
    fail<FormatError>("{} is {}", path, wide);
  if (bytes.find('\0') != std::string_view::npos) {
    fail<FormatError>("{} must be text in UTF-8, but there are NUL bytes at its beginning; {}",
                      path, kToLines);
  }
  const bool begins_as_rows = bytes.starts_with("{\"") || bytes.starts_with("[{\"");
  if (begins_as_rows && kind != RowText::kJson)
    fail<FormatError>(
        "{} holds JSON, as it begins with '{}', and not {}; give it a name that ends in .jsonl to "
        "read its rows",
        path, first_line(bytes), kind == RowText::kTable ? "a table" : "plain text");
  if (kind == RowText::kJson) check_json_begins(path, bytes);
}

std::string whole_file_fault(const std::string& path) {
  constexpr size_t kLargest = size_t{1} << 28;  // beyond it no one spreads out by hand
  io::ByteReader bytes(path);
  std::string text(bytes.peek(kLargest));
  if (text.size() == kLargest) return "";
  text.resize(text.find_last_not_of(" \t\r\n") + 1);
  if (text.find('\n', text.find_first_not_of(" \t\r\n")) == std::string::npos) return "";
  const Json value = io::ordered_json_or_discarded(text);
  if (value.is_object()) {
    const std::string format = guess_format(value), member = member_with_rows(value);
    // A title beside the rows is called a text, too.
    if (!format.empty() && (format != "text" || member.empty()))
      return fmt::format(
          "is one row of format {} over several lines; write it in one line (jq -c .)", format);
    return member.empty() ? "is one JSON object over several lines; if that is a row, write it in "
                            "one line"
                          : fmt::format(
                                "is one JSON object; the rows may be in its member {}: "
                                "write that list alone into the file",
                                member);
  }
  const size_t begin = text.find_first_not_of(" \t\r\n");
  const size_t line_end = text.find('\n', begin);
  const bool opens_alone =
      begin != std::string::npos && line_end != std::string::npos &&
      text.substr(begin, line_end - begin).find_first_not_of(" \t\r{") == std::string::npos;
  return opens_alone ? "holds JSON objects over several lines; write each in one line (jq -c .)"
                     : "";
}

}  // namespace qlora::data
