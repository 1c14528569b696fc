#include "lora/embedding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/parallel_for.h"

namespace qlora::lora {
namespace {

const std::vector<int32_t> kTokens = {3, 1, 3, 0, 6, 3, 1};

TrainedTensor trained_like(const at::Tensor& value) {
  return {value.clone(), at::zeros_like(value), {}};
}

at::Tensor ids() {
  return at::tensor(std::vector<int64_t>(kTokens.begin(), kTokens.end()), at::kLong);
}

TEST(Embedding, AFrozenOneIsLookedUpAndNeedsNoGradient) {
  const Embedding embedding(at::randn({7, 5}).to(at::kBFloat16));
  const at::Tensor rows = embed(embedding, kTokens, true);
  EXPECT_FALSE(rows.requires_grad());
  EXPECT_TRUE(at::equal(rows, embedding.weight.index_select(0, ids()).to(at::kFloat)));
}

TEST(Embedding, ATrainedCopyGetsTheSumOfItsRowsGradients) {
  Embedding embedding(at::randn({7, 5}));
  embedding.trained = std::make_unique<TrainedTensor>(trained_like(at::randn({7, 5})));
  const at::Tensor weights = at::randn({7, 5});
  const at::Tensor rows = embed(embedding, kTokens, true);
  (rows * weights).sum().backward();
  const at::Tensor leaf = embedding.trained->value.clone().requires_grad_(true);
  const at::Tensor reference = at::embedding(leaf, ids());
  (reference * weights).sum().backward();
  EXPECT_TRUE(at::equal(rows, reference));
  EXPECT_TRUE(at::allclose(embedding.trained->gradient, leaf.grad(), 1e-6, 1e-6));
  EXPECT_TRUE(at::equal(embed(embedding, kTokens, false), embedding.weight.index_select(0, ids())));
}

TEST(Embedding, TrainedRowsReplaceTheirTokensAloneAndGetTheirGradient) {
  Embedding embedding(at::randn({7, 5}));
  embedding.rows = std::make_unique<TrainedRows>();
  embedding.rows->ids = {6, 3, 5};  // 5 does not occur
  embedding.rows->index = at::tensor(embedding.rows->ids, at::kLong);
  embedding.rows->rows = trained_like(at::randn({3, 5}));
  const at::Tensor weights = at::randn({7, 5});
  const at::Tensor rows = embed(embedding, kTokens, true);
  (rows * weights).sum().backward();
  const at::Tensor leaf = embedding.rows->rows.value.clone().requires_grad_(true);
  const at::Tensor merged = embedding.weight.index_copy(0, embedding.rows->index, leaf);
  const at::Tensor reference = at::embedding(merged, ids());
  (reference * weights).sum().backward();
  EXPECT_TRUE(at::equal(rows, reference));
  EXPECT_TRUE(at::allclose(embedding.rows->rows.gradient, leaf.grad(), 1e-6, 1e-6));
  EXPECT_EQ(embedding.rows->rows.gradient[2].abs().sum().item<float>(), 0.0f);
}

TEST(Embedding, GradientsAddUpInTheOrderOfTheTokensOnAnyNumberOfThreads) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 5000; ++i) tokens.push_back(i * i % 11);
  const at::Tensor weights = at::randn({5000, 64});
  Embedding embedding(at::randn({11, 64}));
  const auto gradient = [&](int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    embedding.trained = std::make_unique<TrainedTensor>(trained_like(embedding.weight));
    (embed(embedding, tokens, true) * weights).sum().backward();
    set_num_threads(before);
    return embedding.trained->gradient;
  };
  const at::Tensor alone = gradient(1);
  EXPECT_TRUE(at::equal(alone, gradient(2)));
  // In order: fp32 sums one by one.
  at::Tensor sum = at::zeros({11, 64});
  for (size_t i = 0; i < tokens.size(); ++i) sum[tokens[i]].add_(weights[static_cast<int64_t>(i)]);
  EXPECT_TRUE(at::equal(alone, sum));
}

}  // namespace
}  // namespace qlora::lora
