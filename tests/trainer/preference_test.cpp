// Training on pairs of answers: formulas by hand, and steps against autograd with all logits at
// hand.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/seed.h"
#include "tests/support/tiny_model.h"
#include "trainer/preference_evaluation.h"
#include "trainer/preference_objective.h"
#include "trainer/train_loop.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

constexpr int kPairs = 7;

// Prompts of three tokens, answers of two to nine.
std::vector<data::Example> pairs() {
  std::vector<data::Example> examples;
  for (uint64_t row = 0; row < kPairs; ++row)
    for (const data::Side side : {data::Side::kChosen, data::Side::kRejected}) {
      const uint64_t key = random_key(21, 2 * row + (side == data::Side::kRejected));
      data::Example example;
      example.row = static_cast<int64_t>(row);
      example.side = side;
      const uint64_t answer = 2 + uniform_integer(key, 99, 8);
      for (uint64_t i = 0; i < 3 + answer; ++i) {
        const uint64_t of = i < 3 ? random_key(22, row) : key;
        example.tokens.push_back(static_cast<data::TokenId>(uniform_integer(of, i, 61)));
        example.supervised.push_back(i >= 3);
      }
      examples.push_back(example);
    }
  return examples;
}

// Log-probabilities that a reference may have given: none is the model's own.
std::vector<double> some_reference() {
  std::vector<double> reference;
  for (const data::Example& example : pairs())
    reference.push_back(-4.0 * static_cast<double>(example.num_supervised()) +
                        0.7 * static_cast<double>(reference.size() % 3));
  return reference;
}

data::LoaderOptions loading(bool packing, int64_t micro_batch_size, int64_t micro_batches) {
  return {24, packing, true, micro_batch_size, micro_batches, 5};
}

struct PairRun {
  std::unique_ptr<model::CausalLm> model = test::tiny_model();
  std::unique_ptr<lora::AdapterSet> adapters;
  optim::OptimizerOptions options;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<data::Loader> loader;
  TrainState state;
  std::unique_ptr<TrainJob> job;

  // All pairs are one step.
  explicit PairRun(const PreferenceOptions& preference,
                   data::LoaderOptions loader_options = loading(false, kPairs, 1),
                   double dropout = 0)
      : adapters(test::tiny_adapters(*model, true, dropout)) {
    options.name = "adamw";
    options.schedule = "constant";
    options.warmup_ratio = 0;
    options.lr = 1e-3;
    std::vector<optim::Parameter> parameters;
    for (const auto& t : adapters->tensors()) parameters.push_back({t.name, t.value, t.gradient});
    optimizer = optim::make_optimizer(options, parameters);
    loader = std::make_unique<data::Loader>(pairs(), loader_options);
    job.reset(new TrainJob{*model, *adapters, *optimizer, parameters,
                           optim::LrSchedule(options, 10), *loader, state});
    job->objective = preference_objective(
        preference, preference.has_reference() ? some_reference() : std::vector<double>{});
  }

  double loss() {
    last = accumulate_gradients(*job, loader->next());
    return last.value;
  }
  WindowLoss last;
};

// [tokens - 1] log-probabilities of an example's tokens but the first, with a graph.
at::Tensor token_log_probs(model::CausalLm& model, const data::Example& example) {
  model::ForwardInput input;
  input.tokens = example.tokens;
  for (size_t i = 0; i < example.tokens.size(); ++i)
    input.positions.push_back(static_cast<int32_t>(i));
  input.cu_seqlens = {0, static_cast<int32_t>(example.tokens.size())};
  input.training = true;
  const at::Tensor logits = at::mm(model.hidden(input), model.embedding.weight.t());
  const std::vector<int64_t> ids(example.tokens.begin() + 1, example.tokens.end());
  const at::Tensor targets = at::tensor(ids, at::kLong).unsqueeze(1);
  return logits.narrow(0, 0, logits.size(0) - 1).log_softmax(1).gather(1, targets).squeeze(1);
}

at::Tensor log1m_exp(const at::Tensor& x) { return at::log1p(-x.exp()); }

// The loss as its paper writes it, of all logits at once.
at::Tensor direct_loss(model::CausalLm& model, const PreferenceOptions& options) {
  const std::vector<data::Example> examples = pairs();
  const std::vector<double> reference = some_reference();
  at::Tensor loss = at::zeros({}), nll = at::zeros({});
  int64_t nll_tokens = 0;
  for (size_t i = 0; i < examples.size(); i += 2) {
    at::Tensor sums[2];
    int64_t lengths[2];
    for (const size_t k : {0, 1}) {
      const data::Example& example = examples[i + k];
      const at::Tensor each = token_log_probs(model, example);
      lengths[k] = example.num_supervised();
      sums[k] = each.narrow(0, each.size(0) - lengths[k], lengths[k]).sum();
      if (k == 1) continue;
      nll = nll - (options.nll_of_prompts ? each.sum() : sums[k]);
      nll_tokens += options.nll_of_prompts ? each.size(0) : lengths[k];
    }
    if (options.objective == "orpo") {
      const at::Tensor c = sums[0] / lengths[0], r = sums[1] / lengths[1];
      const at::Tensor odds = c - r - (log1m_exp(c) - log1m_exp(r));
      loss = loss - options.beta * at::log_sigmoid(odds);
      continue;
    }
    at::Tensor more = sums[0] - reference[i], less = sums[1] - reference[i + 1];
    if (options.loss_type == "ipo") {
      more = more / lengths[0];
      less = less / lengths[1];
    }
    const at::Tensor delta = more - less;
    if (options.loss_type == "ipo")
      loss = loss + (delta - 1 / (2 * options.beta)).square();
    else if (options.loss_type == "hinge")
      loss = loss + at::relu(1 - options.beta * delta);
    else
      loss = loss - (1 - options.label_smoothing) * at::log_sigmoid(options.beta * delta) -
             options.label_smoothing * at::log_sigmoid(-options.beta * delta);
  }
  loss = loss / kPairs;
  return options.objective == "orpo" ? loss + nll / nll_tokens : loss;
}

std::vector<PreferenceOptions> all_losses() {
  return {{"dpo", 0.1, "sigmoid", 0},  {"dpo", 0.5, "sigmoid", 0.2},
          {"dpo", 0.3, "hinge", 0},    {"dpo", 0.1, "ipo", 0},
          {"orpo", 0.1, "sigmoid", 0}, {"orpo", 0.4, "sigmoid", 0, true}};
}

std::string name_of(const PreferenceOptions& options) {
  return options.objective + " " + options.loss_type + " " +
         std::to_string(options.label_smoothing) + (options.nll_of_prompts ? " with prompts" : "");
}

void expect_close(const at::Tensor& found, const at::Tensor& expected, double share,
                  const std::string& what) {
  const double apart = (found - expected).norm().item<double>();
  EXPECT_LT(apart, share * expected.norm().item<double>()) << what;
  EXPECT_GT(expected.norm().item<double>(), 0) << what;
}

TEST(Preference, LossAndGradientsAreThoseOfTheFormulaOnAllLogits) {
  for (const PreferenceOptions& options : all_losses()) {
    PairRun run(options);
    const double loss = run.loss();
    const at::Tensor gradients = run.adapters->gradients().clone();
    run.adapters->zero_gradients();
    const at::Tensor direct = direct_loss(*run.model, options);
    direct.backward();
    EXPECT_NEAR(loss, direct.item<double>(), 1e-5 * std::abs(loss) + 1e-6) << name_of(options);
    expect_close(gradients, run.adapters->gradients(), 1e-4, name_of(options));
  }
}

TEST(Preference, PackingAndMicroBatchesChangeNothing) {
  for (const PreferenceOptions& options : all_losses()) {
    PairRun whole(options);
    const double loss = whole.loss();
    for (const data::LoaderOptions& loader : {loading(false, 1, kPairs), loading(false, 2, kPairs),
                                              loading(true, 1, kPairs), loading(true, kPairs, 1)}) {
      PairRun parts(options, loader);
      EXPECT_NEAR(parts.loss(), loss, 1e-5 * std::abs(loss)) << name_of(options);
      expect_close(parts.adapters->gradients(), whole.adapters->gradients(), 1e-5,
                   name_of(options));
    }
  }
}

TEST(Preference, RecomputedLayersGiveTheSameBits) {
  for (const PreferenceOptions& options : all_losses()) {
    PairRun kept(options, loading(true, 2, kPairs), 0.1),
        again(options, loading(true, 2, kPairs), 0.1);
    again.state.choices.recompute_layers = true;
    EXPECT_EQ(kept.loss(), again.loss()) << name_of(options);
    EXPECT_TRUE(at::equal(kept.adapters->gradients(), again.adapters->gradients()))
        << name_of(options);
  }
}

TEST(Preference, AnEvaluationHasTheLossAndTheFiguresOfAStepOfTheSamePairs) {
  for (const PreferenceOptions& options : all_losses()) {
    PairRun run(options);
    const double loss = run.loss();
    const auto of_step = run.last.preference;
    const Evaluation evaluation =
        evaluate_preferences(*run.model, pairs(), options,
                             options.has_reference() ? some_reference() : std::vector<double>{});
    EXPECT_NEAR(evaluation.loss, loss, 1e-5 * std::abs(loss)) << name_of(options);
    ASSERT_TRUE(of_step && evaluation.preference);
    const auto expected = of_step->named(), found = evaluation.preference->named();
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].first, expected[i].first);
      EXPECT_NEAR(found[i].second, expected[i].second, 1e-4) << found[i].first;
    }
    EXPECT_EQ(of_step->nll.has_value(), options.objective == "orpo");
    EXPECT_EQ(evaluation.rows.size(), 2u * kPairs);
  }
}

TEST(Preference, TheModelAsItsOwnReferenceHasTheLossOfIndifference) {
  PairRun run(PreferenceOptions{});
  const std::vector<double> own = answer_log_probs(*run.model, pairs());
  ASSERT_EQ(own.size(), 2u * kPairs);
  run.job->objective = preference_objective({}, own);
  EXPECT_NEAR(run.loss(), std::log(2.0), 1e-5);
  EXPECT_NEAR(run.last.preference->margin(), 0, 1e-4);
  PairRun ipo({"dpo", 0.1, "ipo", 0});
  ipo.job->objective = preference_objective({"dpo", 0.1, "ipo", 0}, own);
  EXPECT_NEAR(ipo.loss(), 25.0, 1e-3);  // (1 / (2 β))²
}

TEST(Preference, AFewStepsPreferTheChosenAnswers) {
  for (const PreferenceOptions& options : all_losses()) {
    PairRun run(options);
    run.job->total_steps = 30;
    std::vector<StepMetrics> steps;
    run.job->report = [&](const StepMetrics& metrics) { steps.push_back(metrics); };
    run.job->evaluate = run.job->save = [] {};
    EXPECT_EQ(trainer::run(*run.job), Outcome::kFinished);
    ASSERT_EQ(steps.size(), 30u);
    EXPECT_LT(steps.back().loss, steps.front().loss) << name_of(options);
    const double first = steps.front().preference->margin(),
                 last = steps.back().preference->margin();
    if (options.label_smoothing > 0) {
      // Where one of so many labels is wrong, this margin is the best.
      const double best = std::log((1 - options.label_smoothing) / options.label_smoothing);
      EXPECT_LT(std::abs(last - best), std::abs(first - best)) << name_of(options);
    } else {
      EXPECT_GT(last, first) << name_of(options);
    }
  }
}

TEST(Preference, ABatchWithoutPairsIsRefused) {
  PairRun run(PreferenceOptions{});
  std::vector<data::Example> examples = pairs();
  for (data::Example& example : examples) example.side = data::Side::kNone;
  data::Loader loader(examples, loading(false, 2, 1));
  EXPECT_THROW(accumulate_gradients(*run.job, loader.next()), Error);
}

// Of both answers' sums, by differences.
TEST(PairTerm, ItsDerivativesAreThoseOfItsLoss) {
  const AnswerLogProb chosen{-7.5, 5}, rejected{-11.25, 8};
  const auto loss = [&](const PreferenceOptions& options, double c, double r) {
    return pair_term(options, {chosen.sum + c, chosen.tokens}, {rejected.sum + r, rejected.tokens},
                     -9.0, -10.5)
        .loss;
  };
  constexpr double kStep = 1e-5;
  for (const PreferenceOptions& options : all_losses()) {
    const PairTerm term = pair_term(options, chosen, rejected, -9.0, -10.5);
    EXPECT_NEAR(term.to_chosen, (loss(options, kStep, 0) - loss(options, -kStep, 0)) / (2 * kStep),
                1e-7)
        << name_of(options);
    EXPECT_NEAR(term.to_rejected,
                (loss(options, 0, kStep) - loss(options, 0, -kStep)) / (2 * kStep), 1e-7)
        << name_of(options);
  }
}

TEST(PairTerm, ByHand) {
  // δ = (-7 + 9) - (-12 + 10) = 4
  const PairTerm sigmoid = pair_term({"dpo", 0.5, "sigmoid", 0}, {-7, 5}, {-12, 8}, -9, -10);
  EXPECT_NEAR(sigmoid.loss, std::log1p(std::exp(-2.0)), 1e-12);
  EXPECT_DOUBLE_EQ(sigmoid.chosen_reward, 1.0);
  EXPECT_DOUBLE_EQ(sigmoid.rejected_reward, -1.0);
  EXPECT_DOUBLE_EQ(sigmoid.chosen_logp, -7);
  const PairTerm hinge = pair_term({"dpo", 0.5, "hinge", 0}, {-7, 5}, {-12, 8}, -9, -10);
  EXPECT_EQ(hinge.loss, 0);
  EXPECT_EQ(hinge.to_chosen, 0);
  const PairTerm ipo = pair_term({"dpo", 0.5, "ipo", 0}, {-7, 5}, {-12, 8}, -9, -10);
  EXPECT_NEAR(ipo.loss, std::pow(2.0 / 5 + 2.0 / 8 - 1, 2), 1e-12);
  // l_c = -1, l_r = -2
  const PairTerm orpo = pair_term({"orpo", 0.1}, {-4, 4}, {-6, 3}, 0, 0);
  const double odds = std::log(std::exp(-1.0) / (1 - std::exp(-1.0))) -
                      std::log(std::exp(-2.0) / (1 - std::exp(-2.0)));
  EXPECT_NEAR(orpo.loss, 0.1 * std::log1p(std::exp(-odds)), 1e-12);
  EXPECT_NEAR(orpo.chosen_reward, -0.1, 1e-12);
  EXPECT_NEAR(orpo.rejected_logp, -2, 1e-12);
}

TEST(PairTerm, LargeDifferencesOverflowNothing) {
  for (const PreferenceOptions& options : all_losses())
    for (const double far : {-1e5, -1e-13, 0.0}) {
      const PairTerm term = pair_term(options, {far, 4}, {-1e5, 3}, -2, -1e5);
      EXPECT_TRUE(std::isfinite(term.loss) && std::isfinite(term.to_chosen) &&
                  std::isfinite(term.to_rejected))
          << name_of(options) << " " << far;
    }
}

}  // namespace
}  // namespace qlora::trainer
