// How well the model predicts held-out rows, and whether it answers them to the letter. Neither
// leaves a trace in a run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/examples.h"
#include "model/causal_lm.h"
#include "trainer/evaluation_passes.h"
#include "trainer/preference_loss.h"

namespace qlora::trainer {

// Negative log-likelihood in nats over the supervised tokens of one example.
struct RowLoss {
  int64_t row = -1;
  int32_t source = 0;
  double nll = 0;
  int64_t supervised_tokens = 0;
};

struct Evaluation {
  double loss = 0;  // nats a supervised token
  int64_t tokens = 0, supervised_tokens = 0;
  double seconds = 0;
  std::vector<RowLoss> rows;                         // in the order of the examples
  std::optional<PreferenceMetrics> preference = {};  // of preference_evaluation.h

  double perplexity() const;
};

// Rows are laid end to end up to about `tokens_per_pass` a pass. The loss is a sum in the examples'
// order, the same whether one rank computes it or those of `group` share the passes. Throws Stopped
// between two passes if a stop is wanted.
Evaluation evaluate_loss(model::CausalLm& model, const data::Examples& examples,
                         bool adapters_enabled = true, int64_t tokens_per_pass = kTokensPerPass,
                         distributed::Group* group = nullptr);

// Greedy answers compared with the rows' own, white space at both ends aside.
struct Answer {
  int64_t row = -1;
  int32_t source = 0;  // as RowLoss's
  std::string expected, generated;
  bool matches = false;
};

struct ExactMatch {
  int64_t matches = 0;
  double seconds = 0;
  std::vector<Answer> answers;
};

ExactMatch evaluate_exact_match(model::CausalLm& model, const data::Tokenizer& tokenizer,
                                const std::vector<data::PromptAndAnswer>& questions,
                                int64_t max_new_tokens, bool adapters_enabled = true);

}  // namespace qlora::trainer
