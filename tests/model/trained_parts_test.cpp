// What is trained beside the adapters (modules_to_save, trainable_token_indices) in a whole model:
// gradients against finite differences of the loss.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "model/causal_lm.h"
#include "tests/support/next_token_targets.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora {
namespace {

struct Trained {
  std::unique_ptr<model::CausalLm> model = test::tiny_model();
  model::ForwardInput input = test::tiny_input({19, 7});
  std::unique_ptr<lora::AdapterSet> adapters;

  explicit Trained(const lora::LoraOptions& options) {
    adapters = std::make_unique<lora::AdapterSet>(options, model->parts(), at::kFloat, 3);
    at::NoGradGuard no_grad;
    at::manual_seed(5);
    for (const auto& tensor : adapters->tensors())
      at::Tensor(tensor.value).add_(at::randn(tensor.value.sizes()), 0.05);
    adapters->publish();
  }
  double loss() {
    double sum = 0;
    at::NoGradGuard no_grad;
    for (const float x :
         trainer::token_losses(model->hidden(input), test::next_token_targets(input), model->head,
                               model->context(input)))
      sum += x;
    return sum / 10;
  }
  void backward() {
    adapters->zero_gradients();
    trainer::fused_cross_entropy(model->hidden(input), test::next_token_targets(input), model->head,
                                 0.1, model->context(input))
        .backward();
  }
};

lora::LoraOptions options_with(std::vector<std::string> modules, bool ensure = false) {
  lora::LoraOptions options;
  options.rank = 4;
  options.targets = {"q_proj"};
  options.modules_to_save = std::move(modules);
  options.ensure_weight_tying = ensure;
  return options;
}

// Along each tensor's own gradient the loss must rise by the gradient's norm.
void expect_gradients_of_the_loss(Trained& trained) {
  trained.backward();
  const double step = 1e-2;
  for (const auto& tensor : trained.adapters->tensors()) {
    const double norm = tensor.gradient.norm().item<double>();
    ASSERT_GT(norm, 0) << tensor.name;
    const at::Tensor direction = tensor.gradient / norm, kept = tensor.value.clone();
    at::Tensor value = tensor.value;
    const auto loss_at = [&](double offset) {
      at::NoGradGuard no_grad;
      value.copy_(kept + direction * offset);
      trained.adapters->publish();
      const double loss = trained.loss();
      value.copy_(kept);
      trained.adapters->publish();
      return loss;
    };
    // Central difference: truncation O(step²), fp32 rounding of a loss near 10 about 1e-6 / step.
    EXPECT_NEAR((loss_at(step) - loss_at(-step)) / (2 * step), norm, 1e-2 * norm + 2e-4)
        << tensor.name;
  }
}

TEST(TrainedParts, EmbeddingHeadAndNormsGetTheGradientOfTheLoss) {
  Trained trained(options_with({"embed_tokens", "lm_head", "norm"}));
  EXPECT_EQ(trained.adapters->tensors().size(), 4u + 2 + 5);  // A, B; two matrices; five norms
  expect_gradients_of_the_loss(trained);
}

TEST(TrainedParts, AMatrixSharedByTiedEmbeddingsGetsBothGradients) {
  Trained trained(options_with({"embed_tokens"}, true));
  EXPECT_EQ(trained.adapters->copies().size(), 1u);
  EXPECT_TRUE(trained.model->embeddings_still_tied());
  expect_gradients_of_the_loss(trained);
}

TEST(TrainedParts, LinearModulesTrainedWholeGetTheGradientOfTheLoss) {
  Trained trained(options_with({"o_proj", "layers.0.mlp.up_proj", "v_proj"}));
  expect_gradients_of_the_loss(trained);
}

TEST(TrainedParts, TokensOfTiedEmbeddingsGetBothGradients) {
  lora::LoraOptions options = options_with({});
  options.trainable_token_indices["embed_tokens"] = {test::tiny_input({19, 7}).tokens[3], 60, 2};
  Trained trained(options);
  EXPECT_TRUE(trained.model->embeddings_still_tied());
  expect_gradients_of_the_loss(trained);
}

TEST(TrainedParts, TokensOfTheHeadAloneLeaveTheEmbedding) {
  lora::LoraOptions options = options_with({});
  options.trainable_token_indices["lm_head"] = {7, 30};
  Trained trained(options);
  EXPECT_FALSE(trained.model->embeddings_still_tied());
  EXPECT_FALSE(trained.model->embedding.rows);
  expect_gradients_of_the_loss(trained);
}

TEST(TrainedParts, AnAdapterOnTheHeadGetsTheGradientOfTheLoss) {
  lora::LoraOptions options = options_with({});
  options.targets = {"lm_head"};
  Trained trained(options);
  EXPECT_EQ(trained.adapters->target_modules(), std::vector<std::string>{"lm_head"});
  expect_gradients_of_the_loss(trained);
  options.ensure_weight_tying = true;
  EXPECT_THROW(Trained{options}, ConfigError);
}

// As in PEFT, where the adapter wraps a head whose tokens are those of the embedding.
TEST(TrainedParts, AnAdapterOnATiedHeadIsAddedToTheTrainedTokens) {
  lora::LoraOptions options = options_with({});
  options.targets = {"q_proj", "lm_head"};
  options.trainable_token_indices["embed_tokens"] = {test::tiny_input({19, 7}).tokens[3], 60, 2};
  Trained trained(options);
  EXPECT_FALSE(trained.model->embeddings_still_tied());
  {
    at::NoGradGuard no_grad;
    const at::Tensor hidden = trained.model->hidden(trained.input);
    const lora::TrainedRows& tokens = *trained.model->embedding.rows;
    const lora::Adapter& adapter = *trained.model->head.layers().front().adapter;
    const at::Tensor matrix =
        trained.model->embedding.weight.index_copy(0, tokens.index, tokens.rows.value);
    const at::Tensor expected =
        hidden.mm(matrix.t()) + hidden.mm(adapter.a.t()).mm(adapter.b.t()) * adapter.scaling;
    EXPECT_TRUE(at::allclose(trained.model->logits(hidden), expected, 1e-5, 1e-5));
  }
  expect_gradients_of_the_loss(trained);
  options.use_dora = true;
  EXPECT_THROW(Trained{options}, ConfigError);
}

TEST(TrainedParts, TheBaseStaysAsItIsWhileTheyMove) {
  auto untouched = test::tiny_model();
  lora::LoraOptions options = options_with({"embed_tokens", "lm_head", "norm", "o_proj"});
  Trained trained(options);
  EXPECT_EQ(trained.model->base_hash(), untouched->base_hash());
  EXPECT_FALSE(trained.model->embeddings_still_tied());
  at::NoGradGuard no_grad;
  trained.input.adapters_enabled = false;
  const at::Tensor base = untouched->hidden(trained.input);
  EXPECT_TRUE(at::equal(trained.model->hidden(trained.input), base));
  EXPECT_TRUE(at::equal(trained.model->logits(base, false), untouched->logits(base)));
  trained.input.adapters_enabled = true;
  EXPECT_FALSE(at::allclose(trained.model->hidden(trained.input), base));
}

TEST(TrainedParts, RecomputationAndThreadsChangeNoBit) {
  Trained trained(options_with({"embed_tokens", "lm_head", "norm", "o_proj"}));
  trained.backward();
  const at::Tensor first = trained.adapters->gradients().clone();
  trained.input.recompute_layers = true;
  trained.backward();
  EXPECT_TRUE(at::equal(first, trained.adapters->gradients()));
}

TEST(TrainedParts, NormsAloneAreTrainedBelowEverythingElse) {
  // Nothing below the first norm needs a gradient: its node must be in the graph all the same.
  lora::LoraOptions options = options_with({"layers.0.input_layernorm"});
  options.targets = {"layers.1.self_attn.q_proj"};
  Trained trained(options);
  for (const bool recompute : {false, true}) {
    trained.input.recompute_layers = recompute;
    expect_gradients_of_the_loss(trained);
  }
}

TEST(TrainedParts, HalfPrecisionGradientsPointWhereFloat32OnesDo) {
  const lora::LoraOptions options = options_with({"embed_tokens", "lm_head", "norm", "o_proj"});
  const auto gradients = [&](at::ScalarType compute) {
    auto model = test::tiny_model(compute);
    lora::AdapterSet set(options, model->parts(), compute, 3);
    const auto input = test::tiny_input({19, 7});
    trainer::fused_cross_entropy(model->hidden(input), test::next_token_targets(input), model->head,
                                 0.1, model->context(input))
        .backward();
    return set.gradients().clone();
  };
  const at::Tensor exact = gradients(at::kFloat), half = gradients(at::kBFloat16);
  // bf16 keeps 8 bits; over a few roundings the direction stays within 1e-3.
  const double cosine = ((exact * half).sum() / (exact.norm() * half.norm())).item<double>();
  EXPECT_GT(cosine, 1 - 1e-3);
}

}  // namespace
}  // namespace qlora
