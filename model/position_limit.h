// How many tokens a text may have with its answer: whoever reads, generates or warns asks here.
//
//   learned positions     as many as were learned (GPT-2, GPT-Neo, OPT)
//   ALiBi, dynamic RoPE   any number: biases need no positions (BLOOM, Falcon, MPT), and
//                         frequencies that are made anew for each length reach as far as that
//   linear RoPE           max_position_embeddings times the factor, since this scaling leaves the
//                         number as it was before
//   yarn                  the original context times the factor, or max_position_embeddings where
//                         that is more
//   llama3, longrope      max_position_embeddings; where that is the original context, times the
//                         factor
//   any other RoPE        max_position_embeddings
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "model/architecture.h"

namespace qlora::model {

struct PositionLimit {
  static constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

  int64_t tokens = kAny;
  // For messages: "max_position_embeddings", "RoPE scaling yarn: 4 times 64"; empty: any number.
  std::string said_by = {};

  bool is_any() const { return tokens == kAny; }
  // "max_position_embeddings of the model is 64"
  std::string sentence() const;
};

// Where layers rotate differently, the least of theirs.
PositionLimit position_limit(const Architecture& architecture);

}  // namespace qlora::model
