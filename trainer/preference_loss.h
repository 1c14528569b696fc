// Losses of pairs of answers, of which one is preferred, and their derivatives towards the answers'
// log-probabilities. With log π(y) the sum over an answer's tokens, n(y) their number:
//
//   DPO (Rafailov et al. 2023, eq. 7)   δ = log π(c)/π_ref(c) - log π(r)/π_ref(r)
//     sigmoid   -(1 - ε) log σ(β δ) - ε log σ(-β δ)     ε: label smoothing (Mitchell 2023)
//     hinge     max(0, 1 - β δ)                          (SLiC, Zhao et al. 2023)
//     ipo       (δ' - 1 / (2 β))²                        (Azar et al. 2023), δ' of means a token
//   ORPO (Hong et al. 2024, eq. 6)      nll(c) - β log σ(o),   l = log π(y) / n(y),
//                                       o = l_c - l_r - log(1 - e^{l_c}) + log(1 - e^{l_r})
//
// as TRL's DPOTrainer and ORPOTrainer compute them. A step's loss is the mean over its pairs; nll
// is the mean over the tokens of all chosen answers of the step, whatever the micro-batches.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace qlora::trainer {

struct PreferenceOptions {
  std::string objective = "dpo";  // dpo | orpo
  double beta = 0.1;
  std::string loss_type = "sigmoid";  // dpo: sigmoid | hinge | ipo
  double label_smoothing = 0;         // dpo, sigmoid: ε
  bool nll_of_prompts = false;        // orpo: nll over the prompts of the chosen answers too

  bool has_reference() const { return objective == "dpo"; }
};

// Of one answer: the sum of its tokens' log-probabilities, in nats, and their number.
struct AnswerLogProb {
  double sum = 0;
  int64_t tokens = 0;

  double mean() const { return sum / static_cast<double>(tokens); }
};

struct PairTerm {
  double loss = 0;                                // of ORPO without nll
  double to_chosen = 0, to_rejected = 0;          // derivatives towards the answers' sums
  double chosen_reward = 0, rejected_reward = 0;  // β log π/π_ref; of ORPO β l
  double chosen_logp = 0, rejected_logp = 0;      // log π; of ORPO l
};

// `reference`: the sums of the same answers by the reference model; ORPO has none.
PairTerm pair_term(const PreferenceOptions& options, const AnswerLogProb& chosen,
                   const AnswerLogProb& rejected, double reference_chosen,
                   double reference_rejected);

// Means over pairs.
struct PreferenceMetrics {
  double chosen_reward = 0, rejected_reward = 0;
  double accuracy = 0;  // share of pairs whose chosen answer has the larger reward
  double chosen_logp = 0, rejected_logp = 0;
  std::optional<double> nll = {};  // of ORPO: its first term

  double margin() const { return chosen_reward - rejected_reward; }
  // By the names in metrics.jsonl: rewards_chosen, ...
  std::vector<std::pair<std::string, double>> named() const;
};

class PreferenceTally {
 public:
  // Its sums: four of rewards and log-probabilities, the pairs that were ranked rightly, all pairs.
  using Sums = std::array<double, 6>;

  void add(const PairTerm& term);
  void add(std::span<const double, 6> sums);
  const Sums& sums() const { return sums_; }
  // Zeros if there was no pair.
  PreferenceMetrics means() const;

 private:
  Sums sums_ = {};
};

}  // namespace qlora::trainer
