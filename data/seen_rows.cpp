#include "data/seen_rows.h"

#include <string>
#include <utility>
#include <vector>

namespace qlora::data {

// There may be millions of rows: 16 bytes each instead of 32 digits.
SeenRows::Fingerprint SeenRows::fingerprint_of(const std::string& hex) {
  constexpr size_t kDigits = 16;
  constexpr int kBase = 16;
  return {std::stoull(hex.substr(0, kDigits), nullptr, kBase),
          std::stoull(hex.substr(kDigits), nullptr, kBase)};
}

int64_t SeenRows::take_out_repeated(Examples& examples) {
  constexpr size_t kExamplesInMemory = 1 << 16;
  int64_t repeated = 0;
  std::vector<int64_t> kept;
  for (size_t begin = 0, end = 0; begin < examples.size(); begin = end) {
    const int64_t row = examples[begin].row;
    while (end < examples.size() && examples[end].row == row) ++end;
    if (begin / kExamplesInMemory != end / kExamplesInMemory) examples.drop_pages();
    const std::string fingerprint = examples_fingerprint(examples, begin, end);
    if (!fingerprints_.insert(fingerprint_of(fingerprint)).second) {
      ++repeated;
      continue;
    }
    for (size_t i = begin; i < end; ++i) kept.push_back(static_cast<int64_t>(i));
  }
  examples.drop_pages();
  if (repeated > 0) examples = examples.chosen(std::move(kept));
  return repeated;
}

}  // namespace qlora::data
