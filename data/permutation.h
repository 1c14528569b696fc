// The row order: index = f(seed, epoch, i), so that any position of any epoch is known without
// drawing what comes before.
#pragma once

#include <cstdint>

namespace qlora::data {

// The keyed permutation of [0, count): a Feistel network on (seed, epoch), walked until the value
// falls inside.
int64_t permuted_index(int64_t index, int64_t count, uint64_t seed, int64_t epoch);

// The permutation of [0, count) that keeps each `block` of neighbours, and at the end what is left
// of one, where they are and permutes within: what is dealt out of whole blocks does not depend on
// `count`.
int64_t permuted_within_block(int64_t index, int64_t count, int64_t block, uint64_t seed,
                              int64_t epoch);

}  // namespace qlora::data
