#include "data/row_source.h"

#include <utility>

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

}  // namespace qlora::data
