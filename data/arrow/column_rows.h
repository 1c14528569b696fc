// Rows of files that hold them by columns, read by Apache Arrow's C++ library: Parquet a row group
// after the other, a thousand rows at a time, so that memory is below that of a row group; Arrow's
// streams and files a record batch after the other. Every column whose type has a counterpart in
// JSON is a field of the row (arrow_values.h).
#pragma once

#include <memory>
#include <string>

#include "data/row_files/row_file.h"

namespace qlora::data {

// FormatError with file and row group (record batch) if the file is damaged, or if a column that
// the dataset's format reads has a type without counterpart.
std::unique_ptr<RowFile> open_parquet_rows(const std::string& path, const DatasetOptions& dataset);
std::unique_ptr<RowFile> open_arrow_rows(const std::string& path, bool is_stream,
                                         const DatasetOptions& dataset);

}  // namespace qlora::data
