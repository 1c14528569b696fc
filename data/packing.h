// Chooses which examples share a sequence. First-fit over a bounded window of open sequences, in
// the order given: the result is a pure function of the order and the lengths, close to that order,
// and fills sequences well because a short example finds the gap that a long one left.
#pragma once

#include <cstdint>
#include <vector>

namespace qlora::data {

// Sequences that first-fit may still add to. More fill a little better and search longer.
constexpr int64_t kOpenSequences = 64;

class FirstFit {
 public:
  explicit FirstFit(int64_t sequence_length) : sequence_length_(sequence_length) {}

  // Places an example of so many tokens. Error if they are not in [1, sequence_length].
  void add(int64_t example, int64_t length);

  // The examples of each sequence; sequences stand in the order of their first example.
  const std::vector<std::vector<int64_t>>& sequences() const { return sequences_; }
  // How many of the first sequences stay as they are, whatever is added.
  int64_t num_settled() const;

 private:
  struct OpenSequence {
    int64_t sequence;  // index in the result
    int64_t room;      // tokens left
  };

  int64_t sequence_length_;
  std::vector<std::vector<int64_t>> sequences_;
  std::vector<OpenSequence> open_;  // in the order of `sequence`
};

// `lengths[i]` is the token count of example i; `order` lists the examples to place. Returns the
// examples of each sequence, with the errors of FirstFit.
std::vector<std::vector<int64_t>> pack_first_fit(const std::vector<int64_t>& lengths,
                                                 const std::vector<int64_t>& order,
                                                 int64_t sequence_length);

}  // namespace qlora::data
