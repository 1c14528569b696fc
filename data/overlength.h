// What happens to examples of more than sequence_length tokens (data.on_overlength), counted in the
// report.
//
//   error           FormatError
//   drop            left out
//   truncate_right  the first sequence_length tokens stay
//   truncate_left   the last ones stay; a BOS token keeps its place in front
//   split           consecutive pieces that overlap by one token, so that every token is still
//                   predicted exactly once
//
// Of rows for a model with an encoder the source is shortened, in front of its last token; they are
// not split.
//
// Of two answers to one prompt both stay or neither does, and the pair counts as one example; they
// are not split.
#pragma once

#include <vector>

#include "data/dataset_report.h"
#include "data/example.h"

namespace qlora::data {

struct LengthPolicy {
  OnOverlength on_overlength = OnOverlength::kError;
  int64_t sequence_length = 1024;
  TokenId bos = -1;               // -1: the tokenizer has none
  bool length_is_models = false;  // sequence_length is what the model reaches: no key says it
};

// Appends what remains of `example` to `kept`; examples without a supervised token are dropped
// whatever their length. ConfigError if no row can be cut to the policy's length.
void keep_within_length(Example example, const LengthPolicy& policy, DatasetReport& report,
                        std::vector<Example>& kept);
// The same of all examples of a row, which may be a pair.
void keep_row_within_length(std::vector<Example> examples, const LengthPolicy& policy,
                            DatasetReport& report, std::vector<Example>& kept);

}  // namespace qlora::data
