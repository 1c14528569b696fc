// The rows of a dataset in order, a chunk at a time, through all of its files (shards.h), of
// whatever kinds these are (row_files/row_file.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/example.h"
#include "data/row_files/row_file.h"

namespace qlora::data {

class RowSource {
 public:
  // IoError if the first file cannot be read, ConfigError if there is none, FormatError if it is no
  // file of rows.
  explicit RowSource(const DatasetOptions& dataset);

  // Up to `count` further rows; none at the end, or after the dataset's max_rows. FormatError with
  // file and line if a row is not what its file must hold.
  std::vector<SourceRow> next(int64_t count);

  int64_t num_files() const { return static_cast<int64_t>(shards_.size()); }

 private:
  bool next_row(SourceRow& row);

  DatasetOptions dataset_;
  std::vector<std::string> shards_;
  size_t opened_ = 0;  // of the shards
  std::unique_ptr<RowFile> file_;
  int64_t rows_ = 0;
};

// The location of the row with this index, for messages about a row that was read before: the files
// are read anew as far as to it. "train.jsonl, row 12" where that is not possible.
std::string location_of_row(const DatasetOptions& dataset, int64_t index);

}  // namespace qlora::data
