#include "trainer/preference_loss.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qlora::trainer {
namespace {

// log σ(x) without overflow.
double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

double sigmoid(double x) { return std::exp(log_sigmoid(x)); }

// A loss of one number, and its derivative.
struct Curve {
  double value, slope;
};

Curve sigmoid_loss(double delta, double beta, double smoothing) {
  const double x = beta * delta;
  return {-(1 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x),
          beta * (smoothing * sigmoid(x) - (1 - smoothing) * sigmoid(-x))};
}

Curve hinge_loss(double delta, double beta) {
  const double short_of = 1 - beta * delta;
  return short_of > 0 ? Curve{short_of, -beta} : Curve{0, 0};
}

Curve ipo_loss(double delta, double beta) {
  const double beyond = delta - 1 / (2 * beta);
  return {beyond * beyond, 2 * beyond};
}

PairTerm dpo_term(const PreferenceOptions& options, const AnswerLogProb& chosen,
                  const AnswerLogProb& rejected, double reference_chosen,
                  double reference_rejected) {
  const double more = chosen.sum - reference_chosen, less = rejected.sum - reference_rejected;
  // IPO compares means a token.
  const bool means = options.loss_type == "ipo";
  const double of_chosen = means ? 1 / static_cast<double>(chosen.tokens) : 1;
  const double of_rejected = means ? 1 / static_cast<double>(rejected.tokens) : 1;
  const double delta = of_chosen * more - of_rejected * less;
  const Curve loss = means ? ipo_loss(delta, options.beta)
                     : options.loss_type == "hinge"
                         ? hinge_loss(delta, options.beta)
                         : sigmoid_loss(delta, options.beta, options.label_smoothing);
  return {loss.value,          of_chosen * loss.slope, -of_rejected * loss.slope,
          options.beta * more, options.beta * less,    chosen.sum,
          rejected.sum};
}

// log(1 - e^l) of a mean log-probability. One that rounding has brought to zero counts as a little
// below.
double log_of_others(double mean) { return std::log(-std::expm1(std::min(mean, -1e-12))); }

PairTerm orpo_term(const PreferenceOptions& options, const AnswerLogProb& chosen,
                   const AnswerLogProb& rejected) {
  const double more = chosen.mean(), less = rejected.mean();
  const double others_than_chosen = log_of_others(more), others_than_rejected = log_of_others(less);
  const double log_odds = more - less - others_than_chosen + others_than_rejected;
  const double slope = -options.beta * sigmoid(-log_odds);
  // d(l - log(1 - e^l)) / dl = 1 / (1 - e^l)
  return {-options.beta * log_sigmoid(log_odds),
          slope * std::exp(-others_than_chosen) / static_cast<double>(chosen.tokens),
          -slope * std::exp(-others_than_rejected) / static_cast<double>(rejected.tokens),
          options.beta * more,
          options.beta * less,
          more,
          less};
}

}  // namespace

PairTerm pair_term(const PreferenceOptions& options, const AnswerLogProb& chosen,
                   const AnswerLogProb& rejected, double reference_chosen,
                   double reference_rejected) {
  check(chosen.tokens > 0 && rejected.tokens > 0, "a pair must have two answers with tokens");
  return options.has_reference()
             ? dpo_term(options, chosen, rejected, reference_chosen, reference_rejected)
             : orpo_term(options, chosen, rejected);
}

std::vector<std::pair<std::string, double>> PreferenceMetrics::named() const {
  std::vector<std::pair<std::string, double>> all = {
      {"rewards_chosen", chosen_reward}, {"rewards_rejected", rejected_reward},
      {"rewards_margin", margin()},      {"rewards_accuracy", accuracy},
      {"logps_chosen", chosen_logp},     {"logps_rejected", rejected_logp}};
  if (nll) all.emplace_back("nll", *nll);
  return all;
}

void PreferenceTally::add(const PairTerm& term) {
  const bool right = term.chosen_reward > term.rejected_reward;
  add(Sums{term.chosen_reward, term.rejected_reward, term.chosen_logp, term.rejected_logp,
           right ? 1.0 : 0.0, 1.0});
}

void PreferenceTally::add(std::span<const double, 6> sums) {
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += sums[i];
}

PreferenceMetrics PreferenceTally::means() const {
  const auto& [chosen, rejected, chosen_logp, rejected_logp, right, all] = sums_;
  const double pairs = std::max(all, 1.0);
  return {chosen / pairs, rejected / pairs, right / pairs, chosen_logp / pairs,
          rejected_logp / pairs};
}

}  // namespace qlora::trainer
