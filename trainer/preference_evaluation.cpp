#include "trainer/preference_evaluation.h"

#include "base/stopwatch.h"
#include "trainer/evaluation_passes.h"
#include "trainer/preference_objective.h"

namespace qlora::trainer {
namespace {

// By example.
std::vector<DocumentLogProb> log_probs(model::CausalLm& model, const data::Examples& examples,
                                       const EvaluationPasses& passes) {
  std::vector<DocumentLogProb> all;
  all.reserve(examples.size());
  for_each_pass(model, examples, passes,
                [&](const data::MicroBatch& batch, const std::vector<int32_t>& targets,
                    const std::vector<float>& losses) {
                  const auto documents = document_log_probs(batch, targets, losses);
                  all.insert(all.end(), documents.begin(), documents.end());
                });
  return all;
}

}  // namespace

std::vector<double> answer_log_probs(model::CausalLm& model, const data::Examples& examples,
                                     distributed::Group* group) {
  std::vector<double> sums;
  for (const DocumentLogProb& document :
       log_probs(model, examples, {.name = "log-probabilities of the reference", .group = group}))
    sums.push_back(document.answer.sum);
  return sums;
}

Evaluation evaluate_preferences(model::CausalLm& model, const data::Examples& examples,
                                const PreferenceOptions& options,
                                const std::vector<double>& reference, distributed::Group* group) {
  const Stopwatch watch;
  const auto documents = log_probs(
      model, examples,
      {.targets =
           [&options](const data::MicroBatch& batch) { return targets_of_pairs(batch, options); },
       .group = group});
  Evaluation result;
  PreferenceTally tally;
  double loss = 0, nll = 0;
  int64_t nll_tokens = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    const AnswerLogProb& answer = documents[i].answer;
    result.rows.push_back({examples[i].row, examples[i].source, -answer.sum, answer.tokens});
    result.tokens += examples[i].length();
    result.supervised_tokens += answer.tokens;
    if (examples[i].side != data::Side::kChosen) continue;
    const double of_chosen = options.has_reference() ? reference.at(i) : 0;
    const double of_rejected = options.has_reference() ? reference.at(i + 1) : 0;
    const PairTerm term =
        pair_term(options, answer, documents.at(i + 1).answer, of_chosen, of_rejected);
    tally.add(term);
    loss += term.loss;
    nll -= answer.sum + documents[i].prompt.sum;
    nll_tokens += answer.tokens + documents[i].prompt.tokens;
  }
  result.preference = tally.means();
  if (!documents.empty()) loss /= static_cast<double>(documents.size() / 2);
  if (!options.has_reference() && nll_tokens > 0) {
    result.preference->nll = nll / static_cast<double>(nll_tokens);
    loss += *result.preference->nll;
  }
  result.loss = loss;
  result.seconds = watch.seconds();
  return result;
}

}  // namespace qlora::trainer
