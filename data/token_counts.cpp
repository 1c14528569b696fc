#include "data/token_counts.h"

#include <cstddef>

namespace qlora::data {

void TokenCounts::add(const ExampleView& example) {
  tokens_ += example.length();
  double_bos_ += encoder_.leading_bos(example.tokens) > 1;
  for (size_t i = 1; i < example.tokens.size(); ++i) {
    if (example.supervised[i] == 0) continue;
    ++supervised_;
    if (example.tokens[i] < 0) continue;
    const auto id = static_cast<size_t>(example.tokens[i]);
    if (id >= trained_.size()) trained_.resize(id + 1);
    ++trained_[id];
  }
}

void TokenCounts::write_to(DatasetReport& report) const {
  report.tokens = tokens_;
  report.supervised_tokens = supervised_;
  report.double_bos = double_bos_;
  report.end_of_turns = 0;
  for (size_t i = 0; i < trained_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (trained_[i] > 0 && (report.end_of_turn_ids.contains(id) || encoder_.ends_generation(id)))
      report.end_of_turns += trained_[i];
  }
}

}  // namespace qlora::data
