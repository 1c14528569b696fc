#include "trainer/preference_objective.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/error.h"
#include "trainer/loss.h"

namespace qlora::trainer {
namespace {

// What a document's tokens are weighed with in the cross entropy.
struct DocumentWeights {
  double answer = 0, prompt = 0;
};

std::vector<double> token_weights(const data::MicroBatch& batch,
                                  const std::vector<DocumentWeights>& documents, double scale) {
  std::vector<double> weights(batch.targets.size(), 0.0);
  for (size_t d = 0; d < documents.size(); ++d)
    for (auto i = static_cast<size_t>(batch.cu_seqlens[d]);
         i < static_cast<size_t>(batch.cu_seqlens[d + 1]); ++i)
      weights[i] =
          scale * (batch.targets[i] == data::kIgnore ? documents[d].prompt : documents[d].answer);
  return weights;
}

class PreferenceObjective : public Objective {
 public:
  PreferenceObjective(const PreferenceOptions& options, std::vector<double> reference)
      : options_(options), reference_(std::move(reference)) {}

  void begin(const data::StepWindow& window, double loss_scale) override {
    loss_scale_ = loss_scale;
    a_pair_ = 1 / static_cast<double>(std::max<int64_t>(window.num_pairs, 1));
    if (options_.has_reference()) return;
    int64_t chosen = 0;
    for (const data::MicroBatch& batch : window.micro_batches) chosen += nll_tokens(batch);
    a_token_ = 1 / static_cast<double>(std::max<int64_t>(chosen, 1));
  }

  MicroBatchLoss loss(model::CausalLm& model, const model::ForwardInput& input,
                      const data::MicroBatch& batch) override {
    check(2 * batch.num_pairs == static_cast<int64_t>(batch.examples.size()),
          "preferences are trained on pairs of answers");
    const at::Tensor hidden = model.hidden(input);
    const lora::ForwardContext context = model.context(input);
    const double softcap = model.architecture().logit_softcap;
    const std::vector<int32_t> targets = targets_of_pairs(batch, options_);
    const auto documents = document_log_probs(
        batch, targets, token_losses(hidden, targets, model.head, context, softcap));
    Pairs pairs;
    pairs.weights.resize(documents.size());
    for (size_t d = 0; d + 1 < documents.size(); d += 2) add_pair(batch, d, documents, pairs);
    std::vector<double> facts(pairs.tally.sums().begin(), pairs.tally.sums().end());
    facts.push_back(pairs.nll);
    return {
        pairs.loss,
        weighted_cross_entropy(hidden, targets, token_weights(batch, pairs.weights, loss_scale_),
                               model.head, context, softcap),
        std::move(facts)};
  }

  int64_t num_facts() const override { return kTallied + 1; }

  std::optional<PreferenceMetrics> metrics(const std::vector<double>& facts) const override {
    PreferenceTally tally;
    tally.add(std::span(facts).first<kTallied>());
    PreferenceMetrics means = tally.means();
    if (!options_.has_reference()) means.nll = facts.back();
    return means;
  }

 private:
  static constexpr size_t kTallied = std::tuple_size_v<PreferenceTally::Sums>;

  // What the pairs of a micro-batch come to.
  struct Pairs {
    double loss = 0, nll = 0;
    PreferenceTally tally;
    std::vector<DocumentWeights> weights;
  };

  // Tokens that ORPO's first term is the mean over.
  int64_t nll_tokens(const data::MicroBatch& batch) const {
    const std::vector<int32_t> targets = targets_of_pairs(batch, options_);
    int64_t count = 0;
    for (size_t d = 0; d + 1 < batch.cu_seqlens.size(); d += 2)
      count += std::count_if(targets.begin() + batch.cu_seqlens[d],
                             targets.begin() + batch.cu_seqlens[d + 1],
                             [](int32_t target) { return target != data::kIgnore; });
    return count;
  }

  double reference_of(const data::MicroBatch& batch, size_t document) const {
    return options_.has_reference() ? reference_.at(static_cast<size_t>(batch.examples[document]))
                                    : 0.0;
  }

  // The pair of documents `d` and `d + 1`.
  void add_pair(const data::MicroBatch& batch, size_t d,
                const std::vector<DocumentLogProb>& documents, Pairs& pairs) const {
    const DocumentLogProb& chosen = documents[d];
    const DocumentLogProb& rejected = documents[d + 1];
    const PairTerm term = pair_term(options_, chosen.answer, rejected.answer,
                                    reference_of(batch, d), reference_of(batch, d + 1));
    pairs.tally.add(term);
    // Of negative log-likelihoods.
    pairs.weights[d] = {-a_pair_ * term.to_chosen, 0};
    pairs.weights[d + 1] = {-a_pair_ * term.to_rejected, 0};
    double value = a_pair_ * term.loss;
    if (!options_.has_reference()) {
      pairs.weights[d].answer += a_token_;
      pairs.weights[d].prompt = a_token_;
      const double nll = -a_token_ * (chosen.answer.sum + chosen.prompt.sum);
      pairs.nll += nll;
      value += nll;
    }
    pairs.loss += value;
  }

  PreferenceOptions options_;
  std::vector<double> reference_;
  double loss_scale_ = 1, a_pair_ = 0, a_token_ = 0;
};

}  // namespace

std::vector<int32_t> targets_of_pairs(const data::MicroBatch& batch,
                                      const PreferenceOptions& options) {
  std::vector<int32_t> targets = batch.targets;
  if (options.has_reference() || !options.nll_of_prompts) return targets;
  for (size_t d = 0; d + 1 < batch.cu_seqlens.size(); d += 2)
    for (auto i = static_cast<size_t>(batch.cu_seqlens[d]);
         i + 1 < static_cast<size_t>(batch.cu_seqlens[d + 1]); ++i)
      targets[i] = batch.tokens[i + 1];
  return targets;
}

std::vector<DocumentLogProb> document_log_probs(const data::MicroBatch& batch,
                                                const std::vector<int32_t>& targets,
                                                const std::vector<float>& losses) {
  std::vector<DocumentLogProb> documents(batch.examples.size());
  size_t next = 0;
  for (size_t d = 0; d < documents.size(); ++d)
    for (auto i = static_cast<size_t>(batch.cu_seqlens[d]);
         i < static_cast<size_t>(batch.cu_seqlens[d + 1]); ++i) {
      if (targets[i] == data::kIgnore) continue;
      AnswerLogProb& part =
          batch.targets[i] == data::kIgnore ? documents[d].prompt : documents[d].answer;
      part.sum -= static_cast<double>(losses[next++]);
      ++part.tokens;
    }
  return documents;
}

std::unique_ptr<Objective> preference_objective(const PreferenceOptions& options,
                                                std::vector<double> reference) {
  return std::make_unique<PreferenceObjective>(options, std::move(reference));
}

}  // namespace qlora::trainer
