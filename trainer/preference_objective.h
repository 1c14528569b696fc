// Training on pairs of answers (preference_loss.h). The loss of a pair is a function of its
// answers' log-probabilities, so the head is passed twice, chunk by chunk: without gradients for
// the log-probabilities, then with the loss's derivatives towards them as the tokens' weights
// (loss.h).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/loader.h"
#include "trainer/objective.h"
#include "trainer/preference_loss.h"

namespace qlora::trainer {

// Log-probabilities of one document: of its answer, and of the prompt as far as that has targets.
struct DocumentLogProb {
  AnswerLogProb answer, prompt;
};

// The targets of a batch of pairs: those of the answers and, for ORPO with nll_of_prompts, of the
// chosen documents every token.
std::vector<int32_t> targets_of_pairs(const data::MicroBatch& batch,
                                      const PreferenceOptions& options);

// By document; `losses` as token_losses() gives them of `targets`.
std::vector<DocumentLogProb> document_log_probs(const data::MicroBatch& batch,
                                                const std::vector<int32_t>& targets,
                                                const std::vector<float>& losses);

// The window must consist of pairs. `reference`: the log-probability of each training example's
// answer, by its index in the loader; empty for ORPO.
std::unique_ptr<Objective> preference_objective(const PreferenceOptions& options,
                                                std::vector<double> reference);

}  // namespace qlora::trainer
