#include "data/seen_rows.h"

#include <algorithm>
#include <span>
#include <utility>

namespace qlora::data {

int64_t SeenRows::take_out_repeated(std::vector<Example>& examples) {
  int64_t repeated = 0;
  size_t kept = 0;
  for (size_t begin = 0, end = 0; begin < examples.size(); begin = end) {
    while (end < examples.size() && examples[end].row == examples[begin].row) ++end;
    const std::span<const Example> row(examples.data() + begin, end - begin);
    if (!fingerprints_.insert(examples_fingerprint(row)).second) {
      ++repeated;
      continue;
    }
    for (size_t i = begin; i < end; ++i, ++kept)
      if (kept != i) examples[kept] = std::move(examples[i]);
  }
  examples.resize(kept);
  return repeated;
}

}  // namespace qlora::data
