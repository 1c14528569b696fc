// The targets of a batch in which every token but a document's first is trained.
#pragma once

#include <cstdint>
#include <vector>

#include "model/causal_lm.h"

namespace qlora::test {

inline std::vector<int32_t> next_token_targets(const model::ForwardInput& input) {
  std::vector<int32_t> targets(input.tokens.size(), -100);
  for (size_t d = 0; d + 1 < input.cu_seqlens.size(); ++d)
    for (int i = input.cu_seqlens[d]; i + 1 < input.cu_seqlens[d + 1]; ++i)
      targets[static_cast<size_t>(i)] = input.tokens[static_cast<size_t>(i) + 1];
  return targets;
}

}  // namespace qlora::test
