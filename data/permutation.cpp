#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/seed.h"

namespace qlora::data {
namespace {

constexpr int kRounds = 6;

// A balanced Feistel network on 2 * half_bits bits: a bijection whatever the round function is.
uint64_t feistel(uint64_t value, int half_bits, uint64_t key) {
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t left = value >> half_bits, right = value & mask;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t mixed =
        random_key(key + static_cast<uint64_t>(round) * 0x9e3779b97f4a7c15ull, right);
    const uint64_t next = left ^ (mixed & mask);
    left = right;
    right = next;
  }
  return (left << half_bits) | right;
}

}  // namespace

int64_t permuted_index(int64_t index, int64_t count, uint64_t seed, int64_t epoch) {
  check(index >= 0 && index < count, "permuted_index: index must be in [0, {}), got {}", count,
        index);
  const uint64_t key = random_key(random_key(seed, "row order"), static_cast<uint64_t>(epoch));
  const int bits = std::bit_width(static_cast<uint64_t>(count - 1));
  const int half_bits = std::max(1, (bits + 1) / 2);
  // The network permutes at most 4 * count values; following its cycle until it re-enters [0,
  // count) restricts it to a permutation of those.
  uint64_t value = static_cast<uint64_t>(index);
  do {
    value = feistel(value, half_bits, key);
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

int64_t permuted_within_block(int64_t index, int64_t count, int64_t block, uint64_t seed,
                              int64_t epoch) {
  check(block >= 1, "permuted_within_block: block must be at least 1, got {}", block);
  const int64_t begin = index / block * block;
  const uint64_t key = random_key(random_key(seed, "row block"), static_cast<uint64_t>(begin));
  return begin + permuted_index(index - begin, std::min(block, count - begin), key, epoch);
}

}  // namespace qlora::data
