// Continues token sequences with a KV cache, many at a time: finished ones leave the batch.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/causal_lm.h"

namespace qlora::model {

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  double temperature = 0.0;       // 0: the most likely token
  double top_p = 1.0;             // nucleus sampling, Holtzman et al. 2019; 1: all tokens
  uint64_t seed = 0;              // with the sequence's index and position: every draw
  std::vector<int32_t> stop_ids;  // end a sequence; part of its result
  bool adapters_enabled = true;
  int64_t max_batch = 16;  // sequences decoded together
  // Tokens of a sequence that is decoded alone that are guessed at most (model/prompt_lookup.h) and
  // read in one pass with the one before them, which costs little more than that alone; those that
  // are what would have been chosen are kept, so that the answer is the same. 0: none. Only where
  // tokens_are_independent() (model/few_tokens.h).
  static constexpr int64_t kMostDraftTokens = 7;
  int64_t draft_tokens = kMostDraftTokens;
  // Where a stop is wanted (base/stop.h), leaves with Stopped between two layers, of the prompts'
  // pass as of the others.
  bool obeys_stop = false;
};

// Called with (sequence, token) as each token is chosen; false ends the sequence.
using OnToken = std::function<bool(int64_t, int32_t)>;

// New ids of each prompt, without the prompt, which of a model with an encoder is the source. The
// cache grows with the answers, at most to the model's positions (position_limit.h); beyond the
// context of dynamic RoPE each token is turned by the length of the text up to it, and what is
// cached stays as it was turned, as in transformers. ConfigError if a prompt is empty or leaves no
// room within the model's positions; DivergenceError if a logit is NaN or infinite.
std::vector<std::vector<int32_t>> generate(CausalLm& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options,
                                           const OnToken& on_token = {});

}  // namespace qlora::model
