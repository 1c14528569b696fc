// The merges of a BPE vocabulary by pair of ids: a hash table with open addressing, since the inner
// loop of BPE is little else than looking up pairs.
#pragma once

#include <cstdint>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::data {

struct Merge {
  uint32_t rank;   // place in the list of merges; the lowest goes first
  TokenId result;  // the id of the two tokens joined
};

class PairRanks {
 public:
  explicit PairRanks(size_t num_merges);

  // A pair that comes again takes its new place.
  void set(TokenId left, TokenId right, Merge merge);

  // Null if the pair is no merge.
  const Merge* find(TokenId left, TokenId right) const {
    for (size_t slot = first_slot(left, right);; slot = (slot + 1) & mask_) {
      const Entry& entry = entries_[slot];
      if (entry.left == left && entry.right == right) return &entry.merge;
      if (entry.left < 0) return nullptr;
    }
  }

 private:
  struct Entry {
    TokenId left = -1, right = -1;  // left < 0: empty
    Merge merge{};
  };
  size_t first_slot(TokenId left, TokenId right) const {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    return (key * 0x9E3779B97F4A7C15u >> 32) & mask_;
  }

  std::vector<Entry> entries_;  // a power of two, at most half full
  size_t mask_;
};

}  // namespace qlora::data
