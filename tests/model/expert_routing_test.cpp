#include "model/expert_routing.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "base/device.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "model/composed_expert_routing.h"

namespace qlora::model {
namespace {

const at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

at::Tensor leaf(const at::Tensor& t) { return t.detach().clone().requires_grad_(true); }

// Half a step of the type of `found`, beside what sums in fp32 are off.
void expect_close(const at::Tensor& found, const at::Tensor& wanted, double slack,
                  const std::string& what) {
  ASSERT_EQ(found.sizes(), wanted.sizes()) << what;
  const auto type = found.scalar_type();
  const double step = type == at::kFloat ? 2e-6 : type == at::kHalf ? 5e-4 : 1.0 / 256 + 2e-5;
  const at::Tensor apart = (found.to(at::kDouble) - wanted).abs();
  EXPECT_TRUE((apart <= wanted.abs() * step + slack).all().item<bool>())
      << what << " in " << c10::toString(type) << ": " << apart.max().item<double>();
}

// int64 [tokens, active]: the choice, read off the rows.
at::Tensor experts_of(const Routed& routed) {
  std::vector<int64_t> expert_of_row;
  for (size_t e = 0; e < routed.rows_of_expert.size(); ++e)
    expert_of_row.insert(expert_of_row.end(), static_cast<size_t>(routed.rows_of_expert[e]),
                         static_cast<int64_t>(e));
  return at::tensor(expert_of_row, at::kLong)
      .index_select(0, routed.row_of.cpu().flatten())
      .view(routed.row_of.sizes());
}

// The definition, of ATen's operations.
struct Choice {
  at::Tensor experts, weights;  // [tokens, active]
};
Choice definition(const at::Tensor& logits, const RoutingRule& rule) {
  const at::Tensor p = at::softmax(logits, 1);
  const auto [values, experts] = at::topk(p, rule.active, 1);
  return {experts, rule.renormalise ? values / values.sum(1, true) : values};
}

const RoutingRule kRules[] = {{8, 2, true},  {8, 2, false}, {40, 7, true}, {40, 7, false},
                              {8, 1, true},  {8, 1, false}, {6, 6, true},  {6, 6, false},
                              {1, 1, false}, {128, 8, true}};

std::string name_of(const RoutingRule& rule) {
  return fmt::format("{} of {} experts{}", rule.active, rule.experts,
                     rule.renormalise ? ", renormalised" : "");
}

TEST(Route, TheLargestLogitsAreChosenAndWeighedByTheRule) {
  at::manual_seed(11);
  for (const RoutingRule& rule : kRules) {
    const at::Tensor logits = at::randn({50, rule.experts}) * 2;
    const at::Tensor d = at::randn({50, rule.active});
    const at::Tensor own = leaf(logits), wide = leaf(logits.to(at::kDouble));
    const Routed routed = route(own, rule);
    const Choice wanted = definition(wide, rule);
    EXPECT_TRUE(at::equal(experts_of(routed), wanted.experts)) << name_of(rule);
    ASSERT_EQ(routed.weights.scalar_type(), at::kFloat);
    expect_close(routed.weights.detach(), wanted.weights.detach(), 1e-7, name_of(rule));
    routed.weights.backward(d);
    wanted.weights.backward(d.to(at::kDouble));
    expect_close(own.grad(), wide.grad(), 2e-6, name_of(rule) + ", the gradient");
  }
}

TEST(Route, RowsAreSortedByExpertAndThenByToken) {
  const RoutingRule rule{6, 3};
  const Routed routed = route(at::randn({100, 6}), rule);
  const at::Tensor experts = experts_of(routed);
  ASSERT_EQ(routed.token_of_row.numel(), 300);
  int64_t first = 0;
  for (int64_t e = 0; e < 6; ++e) {
    const int64_t count = routed.rows_of_expert[static_cast<size_t>(e)];
    const at::Tensor tokens = std::get<0>(at::where(experts == e).at(0).sort());
    EXPECT_TRUE(at::equal(routed.token_of_row.narrow(0, first, count), tokens)) << e;
    first += count;
  }
  EXPECT_EQ(first, 300);
  // A token finds itself at each of its rows.
  EXPECT_TRUE(at::equal(routed.token_of_row.index_select(0, routed.row_of.flatten()),
                        at::arange(100, at::kLong).repeat_interleave(3)));
}

TEST(Route, AmongEqualLogitsTheLowerExpertWins) {
  const at::Tensor logits = at::tensor({1.f, 3.f, 2.f, 3.f, 2.f, 2.f}).view({1, 6});
  EXPECT_TRUE(
      at::equal(experts_of(route(logits, {6, 3})), at::tensor({1, 3, 2}, at::kLong).view({1, 3})));
  const Routed all_equal = route(at::zeros({70, 128}), {128, 8});
  for (size_t e = 0; e < 128; ++e) EXPECT_EQ(all_equal.rows_of_expert[e], e < 8 ? 70 : 0) << e;
}

// Logits in bfloat16 are often equal.
TEST(Route, TheChoiceIsThatOfAStableSort) {
  at::manual_seed(12);
  for (const RoutingRule& rule : kRules) {
    const at::Tensor logits = at::randn({200, rule.experts}).to(at::kBFloat16);
    logits[5].fill_(std::nan(""));
    logits[6].fill_(-INFINITY);
    logits[7][rule.experts / 2] = std::nan("");
    const at::Tensor order =
        std::get<1>(at::sort(logits.to(at::kFloat), true, 1, true)).narrow(1, 0, rule.active);
    EXPECT_TRUE(at::equal(experts_of(route(logits, rule)), order)) << name_of(rule);
    EXPECT_TRUE(at::equal(composed::choose_experts(logits.to(at::kFloat), rule.active), order));
  }
}

TEST(Route, ANaNReachesAllWeightsOfItsTokenAndNoOthers) {
  for (const bool renormalise : {true, false}) {
    const at::Tensor logits = at::randn({4, 8});
    logits[2][7] = std::nan("");
    const at::Tensor weights = route(logits, {8, 2, renormalise}).weights;
    EXPECT_TRUE(at::equal(at::isnan(weights).any(1), at::arange(4) == 2));
    EXPECT_TRUE(at::isnan(weights[2]).all().item<bool>());
  }
}

TEST(Route, WeightsThatAreNotOfFp32AreRoundedToTheTypeOfTheLogits) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf})
    for (const bool renormalise : {true, false}) {
      const at::Tensor logits = leaf(at::randn({30, 8}).to(type));
      const at::Tensor exact = route(logits, {8, 3, renormalise, true}).weights;
      const at::Tensor rounded = route(logits, {8, 3, renormalise, false}).weights;
      EXPECT_FALSE(at::equal(exact, rounded));
      EXPECT_TRUE(at::equal(exact.to(type).to(at::kFloat), rounded));
      if (!renormalise) continue;
      // gpt-oss: a softmax of that type, of the chosen logits.
      const at::Tensor chosen = logits.gather(1, experts_of(route(logits, {8, 3})));
      EXPECT_TRUE(at::equal(at::softmax(chosen, 1).to(at::kFloat), rounded));
      rounded.sum().backward();
      EXPECT_EQ(logits.grad().scalar_type(), type);
    }
}

// In double: every expert computes every token, and those that a token did not choose count zero.
at::Tensor dense_mixture(const at::Tensor& x, const at::Tensor& logits, const at::Tensor& experts,
                         const RoutingRule& rule) {
  const Choice choice = definition(logits, rule);
  const at::Tensor shares = at::zeros_like(logits).scatter(1, choice.experts, choice.weights);
  const at::Tensor each = at::matmul(x.unsqueeze(0), experts);  // [experts, tokens, hidden]
  return (shares.t().unsqueeze(2) * each).sum(0);
}

at::Tensor mixture(const at::Tensor& x, const at::Tensor& logits, const at::Tensor& experts,
                   const RoutingRule& rule) {
  const Routed routed = route(logits, rule);
  std::vector<at::Tensor> rows = to_experts(x, routed).split_with_sizes(routed.rows_of_expert);
  for (size_t e = 0; e < rows.size(); ++e) rows[e] = rows[e].mm(experts[static_cast<int64_t>(e)]);
  return from_experts(at::cat(rows), routed);
}

TEST(ExpertRouting, AMixtureIsTheSumOfItsExpertsAndHasItsGradients) {
  at::manual_seed(13);
  for (const RoutingRule& rule : kRules) {
    const at::Tensor x = at::randn({50, 24}), logits = at::randn({50, rule.experts});
    if (rule.active < rule.experts) logits.select(1, 0).fill_(-50);  // without rows
    const at::Tensor experts = at::randn({rule.experts, 24, 24}) * 0.2, d = at::randn({50, 24});
    const at::Tensor own_x = leaf(x), own_logits = leaf(logits);
    const at::Tensor y = mixture(own_x, own_logits, experts, rule);
    ASSERT_EQ(y.scalar_type(), at::kFloat);
    y.backward(d);
    const at::Tensor wide_x = leaf(x.to(at::kDouble)), wide_logits = leaf(logits.to(at::kDouble));
    const at::Tensor wanted = dense_mixture(wide_x, wide_logits, experts.to(at::kDouble), rule);
    wanted.backward(d.to(at::kDouble));
    expect_close(y.detach(), wanted.detach(), 2e-5, name_of(rule) + ", y");
    expect_close(own_x.grad(), wide_x.grad(), 2e-5, name_of(rule) + ", the gradient of x");
    expect_close(own_logits.grad(), wide_logits.grad(), 2e-5, name_of(rule) + ", the logits'");
  }
}

TEST(ToExperts, CopiesRowsAndSumsTheirGradientsRoundedOnce) {
  at::manual_seed(14);
  for (const RoutingRule& rule : kRules)
    for (const at::ScalarType type : kTypes)
      for (const int64_t width : {5, 16, 1050}) {
        const std::string what = fmt::format("{}, width {}", name_of(rule), width);
        const Routed routed = route(at::randn({20, rule.experts}), rule);
        const at::Tensor x = leaf(at::randn({20, width}).to(type));
        const at::Tensor d = at::randn({20 * rule.active, width}).to(type);
        const at::Tensor rows = to_experts(x, routed);
        EXPECT_TRUE(at::equal(rows, x.detach().index_select(0, routed.token_of_row))) << what;
        rows.backward(d);
        ASSERT_EQ(x.grad().scalar_type(), type);
        const at::Tensor of_tokens = d.to(at::kDouble).index_select(0, routed.row_of.flatten());
        expect_close(x.grad(), of_tokens.view({20, rule.active, width}).sum(1), 5e-6, what);
      }
}

TEST(FromExperts, IsTheWeightedSumInFp32AndHasItsGradients) {
  at::manual_seed(15);
  for (const RoutingRule& rule : kRules)
    for (const at::ScalarType type : kTypes)
      for (const int64_t width : {5, 16, 1050}) {
        const std::string what = fmt::format("{}, width {}", name_of(rule), width);
        Routed routed = route(at::randn({20, rule.experts}), rule);
        routed.weights = at::rand({20, rule.active}).requires_grad_(true);
        const at::Tensor y = leaf(at::randn({20 * rule.active, width}).to(type));
        const at::Tensor d = at::randn({20, width});
        const at::Tensor sum = from_experts(y, routed);
        ASSERT_EQ(sum.scalar_type(), at::kFloat);
        sum.backward(d);
        ASSERT_EQ(y.grad().scalar_type(), type);
        ASSERT_EQ(routed.weights.grad().scalar_type(), at::kFloat);

        const at::Tensor wide_y = leaf(y.to(at::kDouble));
        const at::Tensor wide_weights = leaf(routed.weights.to(at::kDouble));
        const at::Tensor of_tokens = wide_y.index_select(0, routed.row_of.flatten());
        const at::Tensor wanted =
            (of_tokens.view({20, rule.active, width}) * wide_weights.unsqueeze(2)).sum(1);
        wanted.backward(d.to(at::kDouble));
        expect_close(sum.detach(), wanted.detach(), 5e-6, what);
        expect_close(y.grad(), wide_y.grad(), 1e-6, what + ", the gradient of y");
        // Sums of 1050 products.
        expect_close(routed.weights.grad(), wide_weights.grad(), 1e-4, what + ", the weights'");
      }
}

// What a GPU computes with, on the CPU: sums in the same order.
TEST(ExpertRouting, TheKernelsAndTheCompositionAgree) {
  at::manual_seed(16);
  for (const at::ScalarType type : kTypes)
    for (const int64_t width : {7, 600}) {
      Routed routed = route(at::randn({30, 16}), {16, 4});
      const at::Tensor none;
      const at::Tensor x = leaf(at::randn({30, width}).to(type));
      const at::Tensor d_rows = at::randn({120, width}).to(type);
      to_experts(x, routed).backward(d_rows);
      const at::Tensor summed = composed::sum_rows(d_rows, routed.row_of, none);
      EXPECT_TRUE(at::equal(summed.to(type), x.grad()));

      routed.weights = leaf(routed.weights);
      const at::Tensor y = leaf(at::randn({120, width}).to(type)), d = at::randn({30, width});
      const at::Tensor sum = from_experts(y, routed);
      sum.backward(d);
      at::NoGradGuard no_grad;
      EXPECT_TRUE(at::equal(composed::sum_rows(y, routed.row_of, routed.weights), sum));
      const at::Tensor d_y = at::empty_like(y), d_weights = at::empty_like(routed.weights);
      composed::sum_rows_backward(d, y, routed.row_of, routed.weights, d_y, d_weights);
      EXPECT_TRUE(at::equal(d_y, y.grad()));
      EXPECT_TRUE(at::allclose(d_weights, routed.weights.grad(), 1e-5, 1e-4));
      d_y.zero_();
      composed::sum_rows_backward(d, none, routed.row_of, routed.weights, d_y, none);
      EXPECT_TRUE(at::equal(d_y, y.grad()));
    }
}

TEST(FromExperts, KeepsWhatTheExpertsGaveOnlyForAGradientOfTheWeights) {
  for (const bool of_weights : {false, true}) {
    const at::Tensor logits = at::randn({9, 4}).requires_grad_(of_weights);
    const Routed routed = route(logits, {4, 2});
    const at::Tensor given = at::randn({18, 12}).requires_grad_(true), y = given * 2;
    const auto before = y.use_count();
    const at::Tensor sum = from_experts(y, routed);
    EXPECT_EQ(y.use_count() > before, of_weights);
    sum.sum().backward();
    const at::Tensor weight_of_row = at::empty({18});
    weight_of_row.index_copy_(0, routed.row_of.flatten(), routed.weights.detach().flatten());
    EXPECT_TRUE(at::equal(given.grad(), 2 * weight_of_row.unsqueeze(1).expand({18, 12})));
    EXPECT_EQ(logits.grad().defined(), of_weights);
  }
}

TEST(ExpertRouting, WithoutGradientsTheResultsAreTheSameAndNoPartOfAGraph) {
  const RoutingRule rule{4, 2, false, false};
  const at::Tensor logits = leaf(at::randn({5, 4})), x = leaf(at::randn({5, 8}));
  const Routed routed = route(logits, rule);
  const at::Tensor rows = to_experts(x, routed), sum = from_experts(rows, routed);
  EXPECT_TRUE(sum.requires_grad());
  at::NoGradGuard no_grad;
  const Routed again = route(logits, rule);
  const at::Tensor rows_again = to_experts(x, again), sum_again = from_experts(rows_again, again);
  EXPECT_FALSE(again.weights.requires_grad() || rows_again.requires_grad() ||
               sum_again.requires_grad());
  EXPECT_TRUE(at::equal(again.weights, routed.weights) && at::equal(rows_again, rows) &&
              at::equal(sum_again, sum));
}

TEST(ExpertRouting, ResultsHaveTheSameBitsOnAnyNumberOfThreads) {
  for (const at::ScalarType type : kTypes) {
    const at::Tensor x = at::randn({600, 200}).to(type), logits = at::randn({600, 64}).to(type);
    const at::Tensor d = at::randn({600, 200});
    const auto results = [&](int threads) {
      const int before = num_threads();
      set_num_threads(threads);
      const at::Tensor own_x = leaf(x), own_logits = leaf(logits);
      const Routed routed = route(own_logits, {64, 6});
      const at::Tensor sum = from_experts(to_experts(own_x, routed), routed);
      sum.backward(d);
      set_num_threads(before);
      return std::vector<at::Tensor>{routed.row_of, routed.weights, sum, own_x.grad(),
                                     own_logits.grad()};
    };
    const auto one = results(1), two = results(2);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
  }
}

TEST(ExpertRouting, NoTokensGiveNoRows) {
  const Routed routed = route(at::empty({0, 4}), {4, 2});
  EXPECT_EQ(routed.rows_of_expert, std::vector<int64_t>(4, 0));
  const at::Tensor rows = to_experts(at::empty({0, 8}).requires_grad_(true), routed);
  EXPECT_EQ(rows.sizes(), at::IntArrayRef({0, 8}));
  const at::Tensor sum = from_experts(rows, routed);
  EXPECT_EQ(sum.sizes(), at::IntArrayRef({0, 8}));
  sum.sum().backward();
}

TEST(ExpertRouting, WhatDoesNotFitIsRefused) {
  const at::Tensor logits = at::randn({3, 4});
  EXPECT_THROW(route(logits, {4, 5}), Error);
  EXPECT_THROW(route(logits, {4, 0}), Error);
  EXPECT_THROW(route(logits, {5, 2}), Error);
  EXPECT_THROW(route(logits[0], {4, 2}), Error);
  EXPECT_THROW(route(at::ones({3, 4}, at::kLong), {4, 2}), Error);
  const Routed routed = route(logits, {4, 2});
  EXPECT_THROW(to_experts(at::randn({4, 8}), routed), Error);
  EXPECT_THROW(to_experts(at::randn({3, 8}, at::kDouble), routed), Error);
  EXPECT_THROW(from_experts(at::randn({3, 8}), routed), Error);
  EXPECT_THROW(from_experts(at::randn({6, 8}, at::kDouble), routed), Error);
  EXPECT_THROW(from_experts(at::randn({8, 6}).t(), routed), Error);
}

TEST(ExpertRoutingGpu, IsThatOfTheCpu) {
  if (!cuda_available()) GTEST_SKIP() << "no GPU";
  at::manual_seed(17);
  for (const at::ScalarType type : kTypes)
    for (const RoutingRule& rule : kRules) {
      const at::Tensor logits = at::randn({70, rule.experts}).to(at::kBFloat16).to(at::kFloat);
      const at::Tensor x = at::randn({70, 300}).to(type), d = at::randn({70, 300});
      const auto results = [&](const at::Device& device) {
        const at::Tensor own_logits = leaf(logits.to(device)), own_x = leaf(x.to(device));
        const Routed routed = route(own_logits, rule);
        const at::Tensor sum = from_experts(to_experts(own_x, routed), routed);
        sum.backward(d.to(device));
        EXPECT_EQ(own_x.grad().scalar_type(), type);
        return std::vector<at::Tensor>{experts_of(routed), routed.token_of_row.cpu(),
                                       sum.detach().cpu(), own_x.grad().cpu().to(at::kFloat),
                                       own_logits.grad().cpu()};
      };
      const auto cpu = results(at::kCPU), gpu = results(at::Device("cuda:0"));
      EXPECT_TRUE(at::equal(gpu[0], cpu[0]) && at::equal(gpu[1], cpu[1])) << name_of(rule);
      const double step = type == at::kFloat ? 2e-5 : type == at::kHalf ? 2.0 / 1024 : 2.0 / 128;
      for (const size_t i : {2, 3, 4})
        EXPECT_TRUE(at::allclose(gpu[i], cpu[i], i == 3 ? step : 2e-5, i == 3 ? step : 1e-4))
            << name_of(rule) << ", result " << i;
    }
}

}  // namespace
}  // namespace qlora::model
