#include "data/row_files/csv_reader.h"

#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::data {
namespace {

constexpr int kEnd = -1;

bool ends_line(int byte) { return byte == '\n' || byte == '\r'; }

}  // namespace

CsvReader::CsvReader(io::ByteReader bytes, char delimiter)
    : bytes_(std::move(bytes)), delimiter_(delimiter) {}

bool CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  skip_empty_lines();
  if (bytes_.peek_byte() == kEnd) return false;
  line_ = next_line_;
  do {
    fields.push_back(field(fields.size() + 1));
  } while (take(delimiter_));
  take_line_end();
  return true;
}

void CsvReader::skip_empty_lines() {
  while (ends_line(bytes_.peek_byte())) take_line_end();
}

void CsvReader::take_line_end() {
  const bool cr = take('\r');
  const bool lf = take('\n');
  next_line_ += cr || lf;
}

bool CsvReader::take(char c) {
  if (bytes_.peek_byte() != static_cast<unsigned char>(c)) return false;
  bytes_.next_byte();
  return true;
}

bool CsvReader::at_field_end() {
  const int byte = bytes_.peek_byte();
  return byte == kEnd || byte == static_cast<unsigned char>(delimiter_) || ends_line(byte);
}

std::string CsvReader::field(size_t column) {
  if (bytes_.peek_byte() == '"') return quoted_field(column);
  std::string text;
  while (!at_field_end()) text += static_cast<char>(bytes_.next_byte());
  return text;
}

std::string CsvReader::quoted_field(size_t column) {
  const int64_t opened_in = next_line_;
  std::string text;
  bytes_.next_byte();
  for (;;) {
    const int byte = bytes_.next_byte();
    if (byte == kEnd)
      fail<FormatError>("{}:{}: the quote that opens column {} is not closed until the file ends",
                        path(), opened_in, column);
    if (byte == '"' && !take('"')) break;
    next_line_ += byte == '\n';
    text += static_cast<char>(byte);
  }
  if (!at_field_end())
    fail<FormatError>(
        "{}:{}: column {} goes on behind its closing quote, with '{}'; a quote within a quoted "
        "field must be doubled (\"\")",
        path(), next_line_, column, replace_invalid_utf8(bytes_.peek(1)));
  return text;
}

}  // namespace qlora::data
