#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/type.h>

#include "data/arrow/column_rows.h"
#include "data/arrow/record_batches.h"

namespace qlora::data {
namespace {

arrow::ipc::IpcReadOptions read_options() {
  arrow::ipc::IpcReadOptions options;
  options.use_threads = false;
  return options;
}

// A reader of one of the two kinds, which knows its columns.
template <typename Reader>
std::shared_ptr<Reader> open_reader(const std::string& path) {
  return refuse_damage(path, [&] {
    const auto file = value_or_fail(arrow::io::ReadableFile::Open(path), path);
    return value_or_fail(Reader::Open(file, read_options()), path);
  });
}

// Batches that follow on each other, as `datasets` writes them.
class StreamRows final : public RecordBatchRows {
 public:
  StreamRows(const std::string& path, const DatasetOptions& dataset)
      : RecordBatchRows(path), reader_(open_reader<arrow::ipc::RecordBatchStreamReader>(path)) {
    columns_ = row_columns(*reader_->schema(), dataset);
  }

 private:
  const char* group_name() const override { return "record batch"; }
  Batch next_batch() override {
    ++group_;
    return refuse_damage(place(), [&] {
      Batch batch;
      require_ok(reader_->ReadNext(&batch.rows), place());
      return batch;
    });
  }

  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> reader_;
};

// Batches with a table of contents at the end, as Feather has them.
class FileRows final : public RecordBatchRows {
 public:
  FileRows(const std::string& path, const DatasetOptions& dataset)
      : RecordBatchRows(path), reader_(open_reader<arrow::ipc::RecordBatchFileReader>(path)) {
    columns_ = row_columns(*reader_->schema(), dataset);
  }

 private:
  const char* group_name() const override { return "record batch"; }
  Batch next_batch() override {
    if (++group_ >= reader_->num_record_batches()) return {};
    return refuse_damage(place(), [&] {
      return Batch{value_or_fail(reader_->ReadRecordBatch(static_cast<int>(group_)), place()), 0};
    });
  }

  std::shared_ptr<arrow::ipc::RecordBatchFileReader> reader_;
};

}  // namespace

std::unique_ptr<RowFile> open_arrow_rows(const std::string& path, bool is_stream,
                                         const DatasetOptions& dataset) {
  if (is_stream) return std::make_unique<StreamRows>(path, dataset);
  return std::make_unique<FileRows>(path, dataset);
}

}  // namespace qlora::data
