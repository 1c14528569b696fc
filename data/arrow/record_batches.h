// What Parquet's and Arrow's files have in common: rows that come in record batches, one after the
// other, of columns that are known before.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>
#include <arrow/status.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/row_files/row_file.h"

namespace qlora::data {

// FormatError that begins with `place` if the status is an error.
void require_ok(const arrow::Status& status, const std::string& place);

template <typename Value>
Value value_or_fail(arrow::Result<Value> result, const std::string& place) {
  require_ok(result.status(), place);
  return std::move(result).ValueUnsafe();
}

// work(); what Arrow's library throws becomes a FormatError that begins with `place`. It reports
// most damage by its return values, some by exceptions of several kinds.
template <typename Work>
auto refuse_damage(const std::string& place, const Work& work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail<FormatError>("{}: the file is damaged or not whole: {}", place, error.what());
  }
}

class RecordBatchRows : public RowFile {
 public:
  explicit RecordBatchRows(std::string path) : path_(std::move(path)) {}
  bool next(SourceRow& row) override;

 protected:
  // Some rows of a group ("row group", "record batch"), the first of them its row `first_row`.
  struct Batch {
    std::shared_ptr<arrow::RecordBatch> rows;  // nullptr: the file ends
    int64_t first_row = 0;
  };

  // Columns of the schema, by index, that are fields of a row. FormatError if one that `dataset`'s
  // format reads is none.
  std::vector<int> row_columns(const arrow::Schema& schema, const DatasetOptions& dataset) const;
  // Further rows of the group, or the first ones of the next, of which it tells in `group_`.
  virtual Batch next_batch() = 0;
  virtual const char* group_name() const = 0;

  const std::string& path() const { return path_; }
  // "train.parquet, row group 3"
  std::string place() const;

  int64_t group_ = -1;        // from 0
  std::vector<int> columns_;  // of the batches, which are fields of a row

 private:
  const std::string path_;
  Batch batch_;
  int64_t in_batch_ = 0;  // rows of it that were given
};

}  // namespace qlora::data
