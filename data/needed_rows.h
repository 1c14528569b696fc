// Of a dataset whose rows are dealt out in the order of its file, or in blocks of it, a run of so
// many steps sees the first ones alone. Counted while they are read, so that reading can end there:
// whatever stands behind them, the steps are the same, bit for bit.
#pragma once

#include <cstdint>
#include <vector>

#include "data/example.h"
#include "data/packing.h"

namespace qlora::data {

struct NeededRows {
  int64_t sequences = 0;  // that the run deals out
  int64_t examples = 0;   // no fewer than these, which the run had when it began
  uint64_t seed = 0;      // of their order
};

// Whether the first rows are dealt out first: one dataset without a weight in the order of its file
// or with shuffle_block, of which no row is set aside or left out as repeated.
bool deals_first_rows_first(const DataOptions& options);

class NeededRowsCounter {
 public:
  // Of options that deal the first rows first.
  NeededRowsCounter(const DataOptions& options, const NeededRows& needed);

  // The next example of the dataset. Error if it is longer than the options allow.
  void add(const Example& example);
  // Whether the needed sequences stay as they are whatever is added, with one more behind them, so
  // that the epoch does not end with the last of them.
  bool enough() const;

 private:
  void deal_block();

  NeededRows needed_;
  bool packing_;
  int64_t block_;  // rows that are permuted together; a pair is a row
  int64_t examples_ = 0, dealt_rows_ = 0;
  std::vector<int64_t> lengths_;  // of the rows that are not dealt out yet
  FirstFit packed_;
};

}  // namespace qlora::data
