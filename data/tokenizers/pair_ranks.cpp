#include "data/tokenizers/pair_ranks.h"

#include <bit>

namespace qlora::data {

PairRanks::PairRanks(size_t num_merges)
    : entries_(std::bit_ceil(2 * num_merges + 2)), mask_(entries_.size() - 1) {}

void PairRanks::set(TokenId left, TokenId right, Merge merge) {
  size_t slot = first_slot(left, right);
  while (entries_[slot].left >= 0 &&
         (entries_[slot].left != left || entries_[slot].right != right)) {
    slot = (slot + 1) & mask_;
  }
  entries_[slot] = {left, right, merge};
}

}  // namespace qlora::data
