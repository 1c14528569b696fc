#include "data/row_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "data/shards.h"

namespace qlora::data {

RowSource::RowSource(const DatasetOptions& dataset)
    : dataset_(dataset), shards_(shards_of(dataset)) {
  file_ = open_row_file(shards_[opened_++], dataset_);
}

bool RowSource::next_row(SourceRow& row) {
  if (dataset_.max_rows > 0 && rows_ == dataset_.max_rows) return false;
  while (file_ != nullptr) {
    if (file_->next(row)) {
      row.index = rows_++;
      return true;
    }
    file_ = opened_ < shards_.size() ? open_row_file(shards_[opened_++], dataset_) : nullptr;
  }
  return false;
}

std::vector<SourceRow> RowSource::next(int64_t count) {
  std::vector<SourceRow> rows;
  SourceRow row;
  while (static_cast<int64_t>(rows.size()) < count && next_row(row)) rows.push_back(std::move(row));
  return rows;
}

std::string location_of_row(const DatasetOptions& dataset, int64_t index) {
  const auto can_be_read_again = [](const std::string& path) {  // a pipe cannot
    std::error_code ignored;
    return std::filesystem::is_regular_file(path, ignored);
  };
  try {
    if (std::ranges::all_of(shards_of(dataset), can_be_read_again)) {
      RowSource source(dataset);
      for (std::vector<SourceRow> row = source.next(1); !row.empty(); row = source.next(1))
        if (row.front().index == index) return row.front().location;
    }
  } catch (const Error&) {  // the file is another now
  }
  return fmt::format("{}, row {}", dataset.path, index);
}

}  // namespace qlora::data
