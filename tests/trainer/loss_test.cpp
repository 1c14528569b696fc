#include "trainer/loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace qlora::trainer {
namespace {

TEST(FusedCrossEntropy, EqualsTheComposedLossAndGradient) {
  at::manual_seed(1);
  const at::Tensor hidden = at::randn({9, 16}).requires_grad_(true);
  const quant::DenseWeight head(at::randn({37, 16}));
  const std::vector<int32_t> targets = {3, -100, 0, 36, -100, 5, 5, 1, -100};
  quant::Workspace workspace;
  const at::Tensor loss = fused_cross_entropy(hidden, targets, head, 0.25, workspace);
  loss.backward();

  at::Tensor weight = at::empty({37, 16});
  head.dequantize_rows(0, 0, 37, weight);
  const at::Tensor reference_hidden = hidden.detach().clone().requires_grad_(true);
  const at::Tensor labels = at::tensor(std::vector<int64_t>(targets.begin(), targets.end()));
  const at::Tensor reference = at::cross_entropy_loss(at::mm(reference_hidden, weight.t()), labels,
                                                      {}, at::Reduction::Sum, -100) *
                               0.25;
  reference.backward();
  EXPECT_NEAR(loss.item<float>(), reference.item<float>(), 1e-5);
  EXPECT_TRUE(at::allclose(hidden.grad(), reference_hidden.grad(), 1e-4, 1e-6));
}

TEST(FusedCrossEntropy, NothingSupervisedCostsNothing) {
  const at::Tensor hidden = at::randn({3, 16}).requires_grad_(true);
  const quant::DenseWeight head(at::randn({37, 16}));
  quant::Workspace workspace;
  const at::Tensor loss = fused_cross_entropy(hidden, {-100, -100, -100}, head, 1.0, workspace);
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0.0f);
  EXPECT_EQ(hidden.grad().abs().sum().item<float>(), 0.0f);
}

TEST(FusedCrossEntropy, ATargetOutsideTheVocabularyIsRefused) {
  const quant::DenseWeight head(at::randn({37, 16}));
  quant::Workspace workspace;
  EXPECT_THROW(fused_cross_entropy(at::randn({1, 16}), {37}, head, 1.0, workspace), std::exception);
}

}  // namespace
}  // namespace qlora::trainer
