// Records of a table in text (RFC 4180): fields between delimiters; a field in double quotes may
// hold delimiters, line breaks and, doubled, quotes. Lines end with LF, CRLF or CR; empty lines are
// passed over. As spreadsheets and pandas write and read it, a quote within a field that does not
// begin with one is a letter like others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/byte_reader.h"

namespace qlora::data {

class CsvReader {
 public:
  CsvReader(io::ByteReader bytes, char delimiter);

  // The fields of the next record; false at the end. FormatError with file, line and column if a
  // quoted field does not end, or goes on behind its closing quote.
  bool next(std::vector<std::string>& fields);

  // Of the record that next() gave last: the line that it begins in, from 1.
  int64_t line() const { return line_; }
  const std::string& path() const { return bytes_.path(); }

 private:
  void skip_empty_lines();
  void take_line_end();
  bool take(char c);
  std::string field(size_t column);
  std::string quoted_field(size_t column);
  bool at_field_end();

  io::ByteReader bytes_;
  const char delimiter_;
  int64_t line_ = 0, next_line_ = 1;  // next_line_: of the byte that is read next
};

}  // namespace qlora::data
