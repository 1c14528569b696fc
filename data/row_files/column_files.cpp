#include "data/row_files/column_files.h"

#include "base/error.h"
#ifdef QLORA_PARQUET
#include "data/arrow/column_rows.h"
#endif

namespace qlora::data {

ColumnFile column_file_by_first_bytes(std::string_view bytes) {
  if (bytes.starts_with("PAR1") || bytes.starts_with("PARE")) return ColumnFile::kParquet;
  if (bytes.starts_with("ARROW1")) return ColumnFile::kArrowFile;
  if (bytes.starts_with("\xff\xff\xff\xff")) return ColumnFile::kArrowStream;
  return ColumnFile::kNone;
}

std::unique_ptr<RowFile> open_column_rows(const std::string& path, ColumnFile kind,
                                          const DatasetOptions& dataset) {
#ifdef QLORA_PARQUET
  if (kind == ColumnFile::kParquet) return open_parquet_rows(path, dataset);
  return open_arrow_rows(path, kind == ColumnFile::kArrowStream, dataset);
#else
  static_cast<void>(dataset);
  fail<ConfigError>(
      "{} is {}, which this program was built without (QLORA_PARQUET=OFF); build it with "
      "-DQLORA_PARQUET=ON, or convert the file to JSON Lines",
      path, kind == ColumnFile::kParquet ? "a Parquet file" : "an Arrow file");
#endif
}

}  // namespace qlora::data
