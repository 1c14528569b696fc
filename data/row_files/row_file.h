// One file of rows, read from its beginning to its end. What kind of file it is, its first bytes
// and, where these leave it open, its name say: JSON Lines or one JSON array, a table (CSV or TSV),
// Parquet, Arrow, or (format: text) a .txt file, which is one row. All but Parquet and Arrow, which
// are compressed inside, may be gzip or Zstandard archives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "data/example.h"
#include "io/byte_reader.h"
#include "nlohmann/json.hpp"

namespace qlora::data {

using Json = nlohmann::ordered_json;

struct SourceRow {
  Json value;
  int64_t index = 0;  // from 0, over all files of the dataset
  int64_t line = 0;   // of its file, from 1; 0 in a file without lines
  // For messages: "train.jsonl:12"; "train.json, row 12", of an array over several lines with its
  // line, "train.json:37, row 12"; "train.parquet, row group 0, row 12". Lines count from 1, rows
  // from 0.
  std::string location;
};

class RowFile {
 public:
  virtual ~RowFile() = default;
  // Sets value, line and location of the next row; false at the end. FormatError with file and
  // place if it is no row.
  virtual bool next(SourceRow& row) = 0;
};

// ConfigError if there is no such file, FormatError if it is no file of rows.
std::unique_ptr<RowFile> open_row_file(const std::string& path, const DatasetOptions& dataset);

// The extension that says what a name's file holds, in lower case and without that of an archive:
// ".jsonl" of "rows.JSONL.gz".
std::string rows_extension(const std::string& path);

// The kinds of files, opened behind a byte order mark.
std::unique_ptr<RowFile> open_json_rows(io::ByteReader bytes);
std::unique_ptr<RowFile> open_table_rows(io::ByteReader bytes, char delimiter,
                                         const DatasetOptions& dataset);
std::unique_ptr<RowFile> open_text_rows(io::ByteReader bytes);

// The value that the text of a row, or of a cell of a table (`what`), writes. FormatError that
// begins with `place` if it is not JSON or nests too deep.
Json parse_json_row(std::string_view text, const std::string& place, const char* what = "row");

}  // namespace qlora::data
