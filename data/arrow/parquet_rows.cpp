#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>

#include "data/arrow/column_rows.h"
#include "data/arrow/record_batches.h"

namespace qlora::data {
namespace {

constexpr int64_t kRowsAtOnce = 1024;

class ParquetRows final : public RecordBatchRows {
 public:
  ParquetRows(const std::string& path, const DatasetOptions& dataset) : RecordBatchRows(path) {
    refuse_damage(path, [&] {
      open();
      choose_columns(dataset);
    });
  }

 private:
  const char* group_name() const override { return "row group"; }

  Batch next_batch() override {
    Batch batch;
    while (batch.rows == nullptr) {
      if (rows_of_group_ != nullptr)
        refuse_damage(place(), [&] { require_ok(rows_of_group_->ReadNext(&batch.rows), place()); });
      if (batch.rows == nullptr && !open_next_group()) return batch;
    }
    batch.first_row = in_group_;
    in_group_ += batch.rows->num_rows();
    return batch;
  }

  void open() {
    parquet::ReaderProperties bytes = parquet::default_reader_properties();
    bytes.enable_buffered_stream();  // a page at a time, not a whole column of a row group
    parquet::ArrowReaderProperties rows(/*use_threads=*/false);
    rows.set_batch_size(kRowsAtOnce);
    rows.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    require_ok(builder.OpenFile(path(), /*memory_map=*/false, bytes), path());
    require_ok(builder.properties(rows)->Build(&reader_), path());
  }

  // Columns that are no fields of a row (images) are not read at all.
  void choose_columns(const DatasetOptions& dataset) {
    std::shared_ptr<arrow::Schema> schema;
    require_ok(reader_->GetSchema(&schema), path());
    const std::vector<int> chosen = row_columns(*schema, dataset);
    const parquet::SchemaDescriptor& leaves = *reader_->parquet_reader()->metadata()->schema();
    for (int i = 0; i < leaves.num_columns(); ++i) {
      const int root = leaves.group_node()->FieldIndex(*leaves.GetColumnRoot(i));
      if (std::ranges::find(chosen, root) != chosen.end()) leaves_.push_back(i);
    }
    for (int i = 0; i < static_cast<int>(chosen.size()); ++i) columns_.push_back(i);
  }

  bool open_next_group() {
    rows_of_group_.reset();
    if (++group_ >= reader_->num_row_groups()) return false;
    in_group_ = 0;
    rows_of_group_ = refuse_damage(place(), [&] {
      return value_or_fail(reader_->GetRecordBatchReader({static_cast<int>(group_)}, leaves_),
                           place());
    });
    return true;
  }

  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::vector<int> leaves_;  // columns of the file without nesting
  std::unique_ptr<arrow::RecordBatchReader> rows_of_group_;
  int64_t in_group_ = 0;
};

}  // namespace

std::unique_ptr<RowFile> open_parquet_rows(const std::string& path, const DatasetOptions& dataset) {
  return std::make_unique<ParquetRows>(path, dataset);
}

}  // namespace qlora::data
