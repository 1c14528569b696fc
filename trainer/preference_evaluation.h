// Pairs of answers without gradients: the reference's log-probabilities before a run, and
// evaluations with the objective that is trained.
#pragma once

#include <vector>

#include "data/examples.h"
#include "model/causal_lm.h"
#include "trainer/evaluate.h"
#include "trainer/preference_loss.h"

namespace qlora::trainer {

// The log-probability of each example's answer by the model as it is, adapters included. The ranks
// of `group` share the work, and all get the same. Throws
// Stopped between two passes if a stop is wanted.
std::vector<double> answer_log_probs(model::CausalLm& model, const data::Examples& examples,
                                     distributed::Group* group = nullptr);

// The loss of all pairs as if they were one step's. `reference` as answer_log_probs() gave it of
// the same examples; empty for ORPO. Throws Stopped likewise.
Evaluation evaluate_preferences(model::CausalLm& model, const data::Examples& examples,
                                const PreferenceOptions& options,
                                const std::vector<double>& reference,
                                distributed::Group* group = nullptr);

}  // namespace qlora::trainer
