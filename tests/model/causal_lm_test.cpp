#include "model/causal_lm.h"
#include "model/kv_cache.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "quant/make_frozen_weight.h"
#include "tests/support/next_token_targets.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora {
namespace {

using test::tiny_adapters;
using test::tiny_input;
using test::tiny_model;

double loss_and_gradients(model::CausalLm& model, lora::AdapterSet& adapters,
                          const model::ForwardInput& input) {
  adapters.zero_gradients();
  const auto targets = test::next_token_targets(input);
  const at::Tensor loss = trainer::fused_cross_entropy(model.hidden(input), targets, model.head,
                                                       1.0 / 10, model.context(input));
  loss.backward();
  return loss.item<double>();
}

void quantize(model::CausalLm& model, const std::string& method) {
  quant::QuantizationOptions options;
  options.method = method;
  for (lora::LinearGroup* group : model.groups())
    for (lora::LoraLinear& layer : group->layers()) {
      at::Tensor weight = at::empty({layer.out_features(), layer.in_features()}, at::kBFloat16);
      layer.base->dequantize_rows(0, 0, layer.out_features(), weight);
      layer.base = quant::make_frozen_weight(weight, options, layer.name);
    }
}

TEST(CausalLm, ZeroBGivesTheBasesOutputExactly) {
  auto model = tiny_model(at::kBFloat16);
  at::NoGradGuard no_grad;
  const at::Tensor base = model->hidden(tiny_input({9, 5}));
  auto adapters = tiny_adapters(*model, false);
  EXPECT_TRUE(at::equal(model->hidden(tiny_input({9, 5})), base));
}

TEST(CausalLm, SwitchedOffAdaptersLeaveTheBase) {
  auto model = tiny_model();
  at::NoGradGuard no_grad;
  auto input = tiny_input({7});
  const at::Tensor base = model->hidden(input);
  auto adapters = tiny_adapters(*model, true);
  EXPECT_FALSE(at::allclose(model->hidden(input), base));
  input.adapters_enabled = false;
  EXPECT_TRUE(at::equal(model->hidden(input), base));
}

TEST(CausalLm, PackedDocumentsDoNotSeeEachOther) {
  auto model = tiny_model();
  at::NoGradGuard no_grad;
  const auto packed = tiny_input({6, 11, 3});
  const at::Tensor together = model->hidden(packed);
  for (size_t d = 0; d < 3; ++d) {
    model::ForwardInput alone;
    const int begin = packed.cu_seqlens[d], end = packed.cu_seqlens[d + 1];
    alone.tokens.assign(packed.tokens.begin() + begin, packed.tokens.begin() + end);
    alone.positions.assign(packed.positions.begin() + begin, packed.positions.begin() + end);
    alone.cu_seqlens = {0, end - begin};
    // Summation order inside a product may differ with the number of rows: fp32 noise, no more.
    EXPECT_TRUE(
        at::allclose(model->hidden(alone), together.narrow(0, begin, end - begin), 1e-5, 1e-5));
  }
}

TEST(CausalLm, ALaterTokenDoesNotChangeAnEarlierOne) {
  auto model = tiny_model();
  at::NoGradGuard no_grad;
  auto input = tiny_input({12});
  const at::Tensor before = model->hidden(input);
  input.tokens[11] = (input.tokens[11] + 1) % 61;
  const at::Tensor after = model->hidden(input);
  EXPECT_TRUE(at::equal(before.narrow(0, 0, 11), after.narrow(0, 0, 11)));
  EXPECT_FALSE(at::equal(before[11], after[11]));
}

TEST(CausalLm, AdapterGradientsMatchFiniteDifferences) {
  auto model = tiny_model();
  auto adapters = tiny_adapters(*model, true);
  const auto input = tiny_input({9, 6});
  loss_and_gradients(*model, *adapters, input);
  const at::Tensor gradients = adapters->gradients().clone();
  // Along the gradient's own direction the loss must change by its squared norm per unit of step.
  const double norm = gradients.norm().item<double>();
  const at::Tensor direction = gradients / norm;
  const double step = 1e-2;
  const at::Tensor masters = adapters->values().detach();
  const auto loss_at = [&](double offset) {
    at::NoGradGuard no_grad;
    const at::Tensor saved = masters.clone();
    masters.add_(direction, offset);
    adapters->publish();
    double sum = 0;
    for (float x : trainer::token_losses(model->hidden(input), test::next_token_targets(input),
                                         model->head, model->context(input)))
      sum += x;
    masters.copy_(saved);
    adapters->publish();
    return sum / 10;
  };
  // Central difference: truncation O(step²), fp32 rounding about 1e-6 / step.
  EXPECT_NEAR((loss_at(step) - loss_at(-step)) / (2 * step), norm, 5e-3 * norm);
  for (const auto& tensor : adapters->tensors())
    EXPECT_GT(tensor.gradient.abs().max().item<float>(), 0) << tensor.name;
}

// With few tokens and with as many as the kernels of training take.
TEST(CausalLm, RecomputedLayersGiveTheSameBits) {
  for (const char* base : {"none", "nf4", "int8"})
    for (const double dropout : {0.0, 0.3})
      for (const std::vector<int>& lengths : {std::vector{9, 6}, {23, 17, 1}}) {
        auto model = tiny_model(at::kBFloat16);
        quantize(*model, base);
        auto adapters = tiny_adapters(*model, true, dropout);
        auto input = tiny_input(lengths);
        input.training = true;
        input.dropout_key = 99;
        const double loss = loss_and_gradients(*model, *adapters, input);
        const at::Tensor gradients = adapters->gradients().clone();
        EXPECT_GT(gradients.abs().max().item<float>(), 0);
        for (const auto& layers :
             {model::RecomputedLayers::first(1), model::RecomputedLayers(true)}) {
          input.recompute_layers = layers;
          EXPECT_EQ(loss_and_gradients(*model, *adapters, input), loss) << base;
          EXPECT_TRUE(at::equal(adapters->gradients(), gradients)) << base;
        }
      }
}

TEST(CausalLm, CachedGenerationAgreesWithTheWholePass) {
  auto model = tiny_model();
  auto adapters = tiny_adapters(*model, true);
  at::NoGradGuard no_grad;
  const auto whole = tiny_input({8, 8});
  const at::Tensor expected = model->hidden(whole);
  model::KvCache cache(model->cache_widths(), 2, 8, at::kFloat, at::kCPU);
  model::ForwardInput prefix;  // five tokens of each document, then the rest one by one
  prefix.cu_seqlens = {0, 5, 10};
  for (int d = 0; d < 2; ++d)
    for (int i = 0; i < 5; ++i) {
      prefix.tokens.push_back(whole.tokens[static_cast<size_t>(d * 8 + i)]);
      prefix.positions.push_back(i);
    }
  prefix.cache = &cache;
  const at::Tensor first = model->hidden(prefix);
  EXPECT_TRUE(at::allclose(first[4], expected[4], 1e-4, 1e-5));
  for (int i = 5; i < 8; ++i) {
    model::ForwardInput step;
    step.tokens = {whole.tokens[static_cast<size_t>(i)], whole.tokens[static_cast<size_t>(8 + i)]};
    step.positions = {i, i};
    step.cu_seqlens = {0, 1, 2};
    step.cache = &cache;
    const at::Tensor out = model->hidden(step);
    EXPECT_TRUE(at::allclose(out[0], expected[i], 1e-4, 1e-5)) << i;
    EXPECT_TRUE(at::allclose(out[1], expected[8 + i], 1e-4, 1e-5)) << i;
  }
}

}  // namespace
}  // namespace qlora
