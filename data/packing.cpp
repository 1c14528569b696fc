#include "data/packing.h"

#include <algorithm>

#include "base/error.h"

namespace qlora::data {

void FirstFit::add(int64_t example, int64_t length) {
  check(length >= 1 && length <= sequence_length_,
        "packing: example {} must have 1 to {} tokens (sequence_length), got {}", example,
        sequence_length_, length);
  auto fitting = std::find_if(open_.begin(), open_.end(),
                              [&](const OpenSequence& s) { return s.room >= length; });
  if (fitting == open_.end()) {
    if (static_cast<int64_t>(open_.size()) == kOpenSequences) {
      // The fullest has the least to lose by closing.
      open_.erase(std::min_element(
          open_.begin(), open_.end(),
          [](const OpenSequence& a, const OpenSequence& b) { return a.room < b.room; }));
    }
    open_.push_back({static_cast<int64_t>(sequences_.size()), sequence_length_});
    sequences_.emplace_back();
    fitting = open_.end() - 1;
  }
  sequences_[static_cast<size_t>(fitting->sequence)].push_back(example);
  fitting->room -= length;
  if (fitting->room == 0) open_.erase(fitting);
}

int64_t FirstFit::num_settled() const {
  return open_.empty() ? static_cast<int64_t>(sequences_.size()) : open_.front().sequence;
}

std::vector<std::vector<int64_t>> pack_first_fit(const std::vector<int64_t>& lengths,
                                                 const std::vector<int64_t>& order,
                                                 int64_t sequence_length) {
  FirstFit packing(sequence_length);
  for (const int64_t example : order)
    packing.add(example, lengths.at(static_cast<size_t>(example)));
  return packing.sequences();
}

}  // namespace qlora::data
