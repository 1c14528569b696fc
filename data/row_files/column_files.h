// Files that hold rows by columns: Parquet, and Arrow's streams and files, which `datasets` keeps
// on disk. Read by Apache Arrow's library (data/arrow), which a build may lack (QLORA_PARQUET=OFF).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/row_files/row_file.h"

namespace qlora::data {

enum class ColumnFile { kNone, kParquet, kArrowFile, kArrowStream };

ColumnFile column_file_by_first_bytes(std::string_view bytes);

// ConfigError if this build cannot read such files, FormatError if the file is damaged, or a column
// that the dataset's format reads has a type that is no part of a row.
std::unique_ptr<RowFile> open_column_rows(const std::string& path, ColumnFile kind,
                                          const DatasetOptions& dataset);

}  // namespace qlora::data
