// Chooses which examples share a sequence. First-fit over a bounded window of open sequences, in
// the order given: the result is a pure function of the order and the lengths, close to that order,
// and fills sequences well because a short example finds the gap that a long one left.
#pragma once

#include <cstdint>
#include <vector>

namespace qlora::data {

// Sequences that first-fit may still add to. More fill a little better and search longer.
constexpr int64_t kOpenSequences = 64;

// `lengths[i]` is the token count of example i, each in [1, sequence_length]; `order` lists the
// examples to place. Returns the examples of each sequence; sequences stand in the order of their
// first example. Error if an example does not fit at all.
std::vector<std::vector<int64_t>> pack_first_fit(const std::vector<int64_t>& lengths,
                                                 const std::vector<int64_t>& order,
                                                 int64_t sequence_length);

}  // namespace qlora::data
