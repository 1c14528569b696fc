#include "model/expert_outputs.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "base/device.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "lora/attach.h"
#include "model/activation.h"
#include "model/expert_schedule.h"
#include "quant/make_frozen_weight.h"

namespace qlora::model {
namespace {

constexpr int64_t kHidden = 64, kInner = 96;

// Experts on an NF4 base, with random adapters of two ranks.
class Mixture {
 public:
  Mixture(size_t num_experts, at::ScalarType compute, bool adapted) : experts_(num_experts) {
    std::vector<lora::LinearGroup*> groups;
    for (size_t e = 0; e < num_experts; ++e) {
      experts_[e].gate_up = group(fmt::format("m.{}.in_proj", e), 2 * kInner, kHidden);
      experts_[e].down = group(fmt::format("m.{}.out_proj", e), kHidden, kInner);
      groups.push_back(&experts_[e].gate_up);
      groups.push_back(&experts_[e].down);
    }
    context_.workspace = &workspace_;
    if (!adapted) return;
    lora::LoraOptions options;
    options.rank = 2;
    options.rank_pattern = {{"m.1.in_proj", 4}, {"m.2.out_proj", 6}};
    adapters_ = std::make_unique<lora::AdapterSet>(options, groups, compute, 1);
    const at::NoGradGuard no_grad;
    for (const lora::AdapterTensor& t : adapters_->tensors()) at::Tensor(t.value).normal_(0, 0.1);
    adapters_->publish();
  }

  const std::vector<ExpertWeights>& experts() const { return experts_; }
  lora::ForwardContext& context() { return context_; }

  // y, the gradient of the rows where they have one, and those of the adapters, by `pass`.
  template <typename Pass>
  std::vector<at::Tensor> results(const at::Tensor& rows, const at::Tensor& dy, bool of_rows,
                                  const Pass& pass) {
    if (adapters_) adapters_->zero_gradients();
    const at::Tensor x = rows.clone().requires_grad_(of_rows);
    const at::Tensor y = pass(x);
    std::vector<at::Tensor> all{y.detach()};
    if (!y.requires_grad()) return all;
    y.backward(dy);
    if (of_rows) all.push_back(x.grad());
    if (adapters_) all.push_back(adapters_->gradients().clone());
    return all;
  }

 private:
  static lora::LinearGroup group(const std::string& name, int64_t out, int64_t in) {
    std::vector<lora::LoraLinear> layers(1);
    layers[0].name = name;
    quant::QuantizationOptions nf4;
    nf4.method = "nf4";
    layers[0].base =
        quant::make_frozen_weight((at::randn({out, in}) * 0.1).to(at::kBFloat16), nf4, name);
    layers[0].bias = at::randn({out}).to(at::kBFloat16);
    return lora::LinearGroup(std::move(layers));
  }

  quant::Workspace workspace_;
  std::vector<ExpertWeights> experts_;
  lora::ForwardContext context_;
  std::unique_ptr<lora::AdapterSet> adapters_;
};

// The definition, of a node for each of an expert's products.
at::Tensor one_by_one(const at::Tensor& rows, const ExpertsCall& call,
                      lora::ForwardContext context) {
  context.rows_vary = true;
  std::vector<at::Tensor> outputs;
  const std::vector<at::Tensor> of_experts = rows.split_with_sizes(call.rows_of_expert);
  for (size_t e = 0; e < of_experts.size(); ++e) {
    if (of_experts[e].size(0) == 0) continue;
    const ExpertWeights& expert = (*call.experts)[e];
    const at::Tensor gates = expert.gate_up.forward(of_experts[e], context)[0];
    const at::ScalarType type = gates.scalar_type();
    const KeptGates kept = keep_halves(gates, call.narrow_gates ? at::kBFloat16 : type);
    const at::Tensor inner = activate_halves(gates, kept, call.activation);
    const lora::RemadeInput again{
        {kept.gate, kept.up}, [&call, type](const std::vector<at::Tensor>& from) {
          return activate_again({from[0], from[1]}, type, call.activation);
        }};
    outputs.push_back(expert.down.forward(inner, context, &again)[0]);
  }
  return at::cat(outputs);
}

class OnThreads {
 public:
  explicit OnThreads(int threads) : before_(num_threads()) { set_num_threads(threads); }
  ~OnThreads() { set_num_threads(before_); }
  OnThreads(const OnThreads&) = delete;
  OnThreads& operator=(const OnThreads&) = delete;

 private:
  int before_;
};

int64_t total(const std::vector<int64_t>& rows_of_expert) {
  return std::accumulate(rows_of_expert.begin(), rows_of_expert.end(), int64_t{0});
}

// Of these each has another of the products' routes, or none; two threads share the first evenly.
const std::vector<int64_t> kEven = {40, 1, 20, 0, 30, 9, 8, 33};
const std::vector<int64_t> kUneven = {2, 0, 120, 3, 0, 0, 0, 0};

TEST(ExpertOutputs, AreThoseOfTheExpertsOneByOneWithAllGradients) {
  at::manual_seed(21);
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16})
    for (const bool adapted : {true, false})
      for (const bool narrow : {false, true}) {
        Mixture mixture(8, compute, adapted);
        for (const auto& rows_of_expert : {kEven, kUneven})
          for (const Activation kind : {Activation::kSilu, Activation::kClampedSilu})
            for (const bool of_rows : {true, false}) {
              const ExpertsCall call{&mixture.experts(), rows_of_expert, {.kind = kind}, narrow};
              const int64_t count = total(rows_of_expert);
              const at::Tensor rows = at::randn({count, kHidden}).to(compute);
              const at::Tensor dy = at::randn({count, kHidden}).to(compute);
              const auto results = [&](int threads, const auto& pass) {
                const OnThreads limit(threads);
                return mixture.results(rows, dy, of_rows, [&](const at::Tensor& x) {
                  return pass(x, call, mixture.context());
                });
              };
              const auto wanted = results(1, one_by_one);
              for (const int threads : {1, 2, 3}) {
                const auto found = results(threads, expert_outputs);
                ASSERT_EQ(found.size(), wanted.size());
                for (size_t i = 0; i < found.size(); ++i)
                  EXPECT_TRUE(at::equal(found[i], wanted[i]))
                      << "result " << i << ", " << threads << " threads, " << adapted << narrow
                      << of_rows << ", " << c10::toString(compute);
              }
            }
      }
}

TEST(ExpertOutputs, RowsThatComeFromTokensAreMadeAgainForTheSameGradients) {
  at::manual_seed(26);
  Mixture mixture(8, at::kBFloat16, true);
  const int64_t count = total(kEven);
  const at::Tensor tokens = at::randn({count / 2, kHidden}).to(at::kBFloat16);
  const at::Tensor token_of_row = at::arange(count).flip(0).remainder(count / 2).contiguous();
  const at::Tensor dy = at::randn({count, kHidden}).to(at::kBFloat16);
  int64_t holders_of_rows = 0;
  const auto results = [&](bool from_tokens) {
    return mixture.results(tokens, dy, true, [&](const at::Tensor& x) {
      const at::Tensor rows = x.index_select(0, token_of_row);
      ExpertsCall call{&mixture.experts(), kEven};
      if (from_tokens) call.source = {x, token_of_row};
      const at::Tensor y = expert_outputs(rows, call, mixture.context());
      holders_of_rows = static_cast<int64_t>(rows.use_count());
      return y;
    });
  };
  const auto kept = results(false);
  EXPECT_GT(holders_of_rows, 1);
  const auto again = results(true);
  EXPECT_EQ(holders_of_rows, 1);
  ASSERT_EQ(again.size(), kept.size());
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(at::equal(again[i], kept[i])) << i;
}

TEST(ExpertOutputs, WithoutAGraphOrAdaptersAreTheSame) {
  at::manual_seed(22);
  Mixture mixture(8, at::kBFloat16, true);
  const ExpertsCall call{&mixture.experts(), kEven};
  const at::Tensor rows = at::randn({total(kEven), kHidden}).to(at::kBFloat16);
  const at::Tensor with_graph = expert_outputs(rows, call, mixture.context());
  EXPECT_TRUE(with_graph.requires_grad());
  mixture.context().adapters_enabled = false;
  const at::Tensor base = expert_outputs(rows, call, mixture.context());
  EXPECT_FALSE(base.requires_grad());
  EXPECT_FALSE(at::equal(base, with_graph));
  EXPECT_TRUE(at::equal(base, one_by_one(rows, call, mixture.context())));
  mixture.context().adapters_enabled = true;
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(expert_outputs(rows, call, mixture.context()), with_graph));
}

TEST(ExpertOutputs, AnObserverSeesTheGroupsInTheExpertsOrder) {
  Mixture mixture(8, at::kFloat, false);
  std::vector<std::string> seen;
  const lora::InputObserver observer = [&](const lora::LinearGroup& group, const at::Tensor& x) {
    seen.push_back(fmt::format("{} {}", group.layers().front().name, x.size(0)));
  };
  mixture.context().observer = &observer;
  const at::NoGradGuard no_grad;
  expert_outputs(at::randn({total(kUneven), kHidden}), {&mixture.experts(), kUneven},
                 mixture.context());
  EXPECT_EQ(seen,
            (std::vector<std::string>{"m.0.in_proj 2", "m.0.out_proj 2", "m.2.in_proj 120",
                                      "m.2.out_proj 120", "m.3.in_proj 3", "m.3.out_proj 3"}));
}

TEST(ExpertOutputs, NoRowsGiveNone) {
  Mixture mixture(2, at::kFloat, true);
  const at::Tensor rows = at::empty({0, kHidden}).requires_grad_(true);
  const at::Tensor y = expert_outputs(rows, {&mixture.experts(), {0, 0}}, mixture.context());
  EXPECT_EQ(y.sizes(), at::IntArrayRef({0, kHidden}));
  y.sum().backward();
}

TEST(ExpertOutputs, RowsThatDoNotFitAreRefused) {
  Mixture mixture(2, at::kFloat, false);
  const ExpertsCall call{&mixture.experts(), {3, 4}};
  EXPECT_THROW(expert_outputs(at::randn({8, kHidden}), call, mixture.context()), Error);
  ExpertsCall from_elsewhere = call;
  from_elsewhere.source = {at::randn({4, kHidden}), at::zeros({6}, at::kLong)};
  EXPECT_THROW(expert_outputs(at::randn({7, kHidden}), from_elsewhere, mixture.context()), Error);
  EXPECT_THROW(expert_outputs(at::randn({7, kHidden + 1}), call, mixture.context()), Error);
  EXPECT_THROW(expert_outputs(at::randn({kHidden, 7}).t(), call, mixture.context()), Error);
  EXPECT_THROW(
      expert_outputs(at::randn({7, kHidden}), {&mixture.experts(), {7}}, mixture.context()), Error);
}

TEST(ExpertSchedule, ExpertsWithMostRowsAreFirstAndThoseWithoutAreLeftOut) {
  EXPECT_EQ(most_rows_first({3, 0, 7, 3, 9}), (std::vector<size_t>{4, 2, 0, 3}));
  EXPECT_TRUE(most_rows_first({0, 0}).empty());
}

TEST(ExpertSchedule, IsEvenWhereNoThreadHasAQuarterMoreThanItsShare) {
  EXPECT_TRUE(are_shared_evenly({100, 100, 100, 100}, 2));
  EXPECT_TRUE(are_shared_evenly({200, 100, 100, 0}, 2));
  EXPECT_FALSE(are_shared_evenly({400, 10, 10, 10}, 2));
  EXPECT_FALSE(are_shared_evenly({100, 100, 100}, 2));  // 4 : 2
  EXPECT_FALSE(are_shared_evenly({100}, 2));
  EXPECT_TRUE(are_shared_evenly({100}, 1));
  EXPECT_FALSE(are_shared_evenly(std::vector<int64_t>(8, 128), 16));
  EXPECT_TRUE(are_shared_evenly(std::vector<int64_t>(128, 32), 16));
}

}  // namespace
}  // namespace qlora::model
