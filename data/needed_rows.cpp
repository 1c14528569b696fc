#include "data/needed_rows.h"

#include <algorithm>

#include "data/permutation.h"

namespace qlora::data {

bool deals_first_rows_first(const DataOptions& options) {
  const bool one_dataset = options.train.size() == 1 && options.train.front().weight == 0;
  const bool in_order = !options.shuffle || options.shuffle_block > 0;
  return one_dataset && in_order && !options.deduplicate && options.eval_fraction == 0;
}

NeededRowsCounter::NeededRowsCounter(const DataOptions& options, const NeededRows& needed)
    : needed_(needed),
      packing_(options.packing),
      block_(options.shuffle ? std::max<int64_t>(options.shuffle_block, 1) : 1),
      packed_((options.has_pairs() ? 2 : 1) * options.sequence_length) {}

void NeededRowsCounter::add(const Example& example) {
  ++examples_;
  if (example.side == Side::kRejected)
    lengths_.back() += example.length();
  else
    lengths_.push_back(example.length());
  const bool row_is_whole = example.side != Side::kChosen;
  if (row_is_whole && static_cast<int64_t>(lengths_.size()) == block_) deal_block();
}

// As Loader does in the first epoch.
void NeededRowsCounter::deal_block() {
  const int64_t begin = dealt_rows_, end = begin + block_;
  for (int64_t i = begin; i < end && packing_; ++i) {
    const int64_t row = permuted_within_block(i, end, block_, needed_.seed, 0);
    packed_.add(row, lengths_[static_cast<size_t>(row - begin)]);
  }
  dealt_rows_ = end;
  lengths_.clear();
}

bool NeededRowsCounter::enough() const {
  const int64_t settled = packing_ ? packed_.num_settled() : dealt_rows_;
  return examples_ >= needed_.examples && settled > needed_.sequences;
}

}  // namespace qlora::data
