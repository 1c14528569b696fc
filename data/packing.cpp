#include "data/packing.h"

#include <algorithm>

#include "base/error.h"

namespace qlora::data {
namespace {

struct OpenSequence {
  int64_t sequence;  // index in the result
  int64_t room;      // tokens left
};

}  // namespace

std::vector<std::vector<int64_t>> pack_first_fit(const std::vector<int64_t>& lengths,
                                                 const std::vector<int64_t>& order,
                                                 int64_t sequence_length) {
  std::vector<std::vector<int64_t>> sequences;
  std::vector<OpenSequence> open;
  for (const int64_t example : order) {
    const int64_t length = lengths.at(static_cast<size_t>(example));
    check(length >= 1 && length <= sequence_length,
          "packing: example {} must have 1 to {} tokens (sequence_length), got {}", example,
          sequence_length, length);
    auto fitting = std::find_if(open.begin(), open.end(),
                                [&](const OpenSequence& s) { return s.room >= length; });
    if (fitting == open.end()) {
      if (static_cast<int64_t>(open.size()) == kOpenSequences) {
        // The fullest has the least to lose by closing.
        open.erase(std::min_element(
            open.begin(), open.end(),
            [](const OpenSequence& a, const OpenSequence& b) { return a.room < b.room; }));
      }
      open.push_back({static_cast<int64_t>(sequences.size()), sequence_length});
      sequences.emplace_back();
      fitting = open.end() - 1;
    }
    sequences[static_cast<size_t>(fitting->sequence)].push_back(example);
    fitting->room -= length;
    if (fitting->room == 0) open.erase(fitting);
  }
  return sequences;
}

}  // namespace qlora::data
