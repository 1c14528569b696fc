// What a report says of the tokens of a dataset's examples, counted as these come: which tokens end
// an answer need not be known before the last one has.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset_report.h"
#include "data/examples.h"
#include "data/prompt_encoder.h"

namespace qlora::data {

class TokenCounts {
 public:
  // The tokenizer must outlive this.
  explicit TokenCounts(const Tokenizer& tokenizer) : encoder_(tokenizer) {}

  void add(const ExampleView& example);
  // Sets tokens, supervised_tokens, double_bos and end_of_turns, the last by the end_of_turn_ids
  // that the report has.
  void write_to(DatasetReport& report) const;

 private:
  PromptEncoder encoder_;
  int64_t tokens_ = 0, supervised_ = 0, double_bos_ = 0;
  std::vector<int64_t> trained_;  // by id: how often it is trained
};

}  // namespace qlora::data
