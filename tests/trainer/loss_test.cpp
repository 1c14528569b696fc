#include "trainer/loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "trainer/loss_kernels.h"

namespace qlora::trainer {
namespace {

// A head of one layer with this weight, and the context it is called in.
struct Head {
  explicit Head(const at::Tensor& weight) {
    std::vector<lora::LoraLinear> layers(1);
    layers[0].name = "lm_head";
    layers[0].base = std::make_unique<quant::DenseWeight>(weight);
    group = lora::LinearGroup(std::move(layers));
    context.workspace = &workspace;
  }
  quant::Workspace workspace;
  lora::ForwardContext context;
  lora::LinearGroup group;
};

TEST(FusedCrossEntropy, EqualsTheComposedLossAndGradient) {
  at::manual_seed(1);
  const at::Tensor hidden = at::randn({9, 16}).requires_grad_(true);
  const at::Tensor weight = at::randn({37, 16});
  const Head head(weight);
  const std::vector<int32_t> targets = {3, -100, 0, 36, -100, 5, 5, 1, -100};
  const at::Tensor loss = fused_cross_entropy(hidden, targets, head.group, 0.25, head.context);
  loss.backward();

  const at::Tensor reference_hidden = hidden.detach().clone().requires_grad_(true);
  const at::Tensor labels = at::tensor(std::vector<int64_t>(targets.begin(), targets.end()));
  const at::Tensor reference = at::cross_entropy_loss(at::mm(reference_hidden, weight.t()), labels,
                                                      {}, at::Reduction::Sum, -100) *
                               0.25;
  reference.backward();
  EXPECT_NEAR(loss.item<float>(), reference.item<float>(), 1e-5);
  EXPECT_TRUE(at::allclose(hidden.grad(), reference_hidden.grad(), 1e-4, 1e-6));
}

// The kernel alone, against float64: losses to fp32, gradients rounded once, whatever the rest of a
// vector that the vocabulary leaves.
TEST(SoftmaxCrossEntropy, OfBfloat16IsTheFormulaRoundedOnce) {
  at::manual_seed(4);
  for (const int64_t vocab : {1, 31, 32, 49, 1000}) {
    constexpr int64_t kRows = 7;
    at::Tensor logits = (at::randn({kRows, vocab}) * 8).to(at::kBFloat16);
    logits[1] += 20000;  // sums of exponentials are taken below the largest
    const at::Tensor targets = at::randint(vocab, {kRows}, at::kLong);
    const at::Tensor wide = logits.to(at::kDouble);
    const at::Tensor exact_loss =
        at::cross_entropy_loss(wide, targets, {}, at::Reduction::None, -100);
    const at::Tensor scale = at::linspace(-1.0, 2.0, kRows, at::kFloat);
    const at::Tensor exact_gradient =
        scale.to(at::kDouble).unsqueeze(1) *
        (wide.softmax(1) - at::one_hot(targets, vocab).to(at::kDouble));
    for (const bool gradient : {false, true}) {
      at::Tensor found = logits.clone(), losses = at::empty({kRows}, at::kFloat);
      cpu::softmax_cross_entropy({found.mutable_data_ptr(), quant::ElementType::kBFloat16,
                                  targets.const_data_ptr<int64_t>(), kRows, vocab,
                                  gradient ? scale.const_data_ptr<float>() : nullptr, gradient,
                                  losses.data_ptr<float>()});
      // Of a loss near zero the last bit is that of its largest logit.
      EXPECT_TRUE(at::allclose(losses.to(at::kDouble), exact_loss, 1e-5, 4e-3)) << vocab;
      EXPECT_TRUE(at::allclose(losses.to(at::kDouble).narrow(0, 2, 5), exact_loss.narrow(0, 2, 5),
                               1e-5, 1e-5))
          << vocab;
      if (!gradient) {
        EXPECT_TRUE(at::equal(found, logits));
        continue;
      }
      const at::Tensor apart = (found.to(at::kDouble) - exact_gradient).abs();
      EXPECT_TRUE((apart <= exact_gradient.abs() * (1.0 / 256 + 2e-5) + 1e-6).all().item<bool>())
          << vocab << ": " << apart.max().item<double>();
    }
  }
}

TEST(WeightedCrossEntropy, WeighsEachTargetByItsOwnFactorOfEitherSign) {
  at::manual_seed(6);
  const int64_t rows = 300;  // two chunks of float32
  const at::Tensor hidden = at::randn({rows, 16}).requires_grad_(true);
  const at::Tensor weight = at::randn({37, 16});
  const Head head(weight);
  std::vector<int32_t> targets;
  std::vector<double> weights;
  for (int64_t i = 0; i < rows; ++i) {
    targets.push_back(i % 5 == 0 ? -100 : static_cast<int32_t>(i * i % 37));
    weights.push_back(i % 5 == 0 ? 1e30 : 0.01 * static_cast<double>(i % 7 - 3));
  }
  const at::Tensor loss =
      weighted_cross_entropy(hidden, targets, weights, head.group, head.context);
  loss.backward();

  const at::Tensor leaf = hidden.detach().clone().requires_grad_(true);
  const at::Tensor labels = at::tensor(std::vector<int64_t>(targets.begin(), targets.end()));
  const at::Tensor each =
      at::cross_entropy_loss(at::mm(leaf, weight.t()), labels, {}, at::Reduction::None, -100);
  const at::Tensor factors =
      at::where(labels == -100, at::zeros({rows}, at::kDouble), at::tensor(weights, at::kDouble));
  const at::Tensor reference = (each.to(at::kDouble) * factors).sum();
  reference.backward();
  EXPECT_NEAR(loss.item<float>(), reference.item<double>(), 1e-5);
  EXPECT_TRUE(at::allclose(hidden.grad(), leaf.grad(), 1e-4, 1e-6));
  EXPECT_THROW(weighted_cross_entropy(hidden, targets, {1.0}, head.group, head.context), Error);
}

TEST(FusedCrossEntropy, ATrainedHeadGetsItsGradientOverAllChunks) {
  at::manual_seed(2);
  const int64_t rows = 600;                         // three chunks
  const at::Tensor hidden = at::randn({rows, 16});  // nothing below the head is trained
  Head head(at::randn({37, 16}));
  lora::TrainedTensor trained{at::randn({37, 16}), at::zeros({37, 16}), {}};
  trained.compute = trained.value;
  head.group.layers()[0].trained_weight = std::make_unique<lora::TrainedTensor>(trained);
  head.group.set_anchor(lora::anchor_of(trained));
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < rows; ++i) targets.push_back(static_cast<int32_t>(i * i % 37));
  const at::Tensor loss = fused_cross_entropy(hidden, targets, head.group, 0.25, head.context);
  loss.backward();

  const at::Tensor leaf = trained.value.clone().requires_grad_(true);
  const at::Tensor labels = at::tensor(std::vector<int64_t>(targets.begin(), targets.end()));
  const at::Tensor reference =
      at::cross_entropy_loss(at::mm(hidden, leaf.t()), labels, {}, at::Reduction::Sum, -100) * 0.25;
  reference.backward();
  EXPECT_NEAR(loss.item<float>(), reference.item<float>(), 1e-6 * reference.item<float>());
  EXPECT_TRUE(at::allclose(trained.gradient, leaf.grad(), 1e-4, 1e-4));
}

TEST(FusedCrossEntropy, NothingSupervisedCostsNothing) {
  const at::Tensor hidden = at::randn({3, 16}).requires_grad_(true);
  const Head head(at::randn({37, 16}));
  const at::Tensor loss =
      fused_cross_entropy(hidden, {-100, -100, -100}, head.group, 1.0, head.context);
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0.0f);
  EXPECT_EQ(hidden.grad().abs().sum().item<float>(), 0.0f);
}

TEST(FusedCrossEntropy, ATargetOutsideTheVocabularyIsRefused) {
  const Head head(at::randn({37, 16}));
  EXPECT_THROW(fused_cross_entropy(at::randn({1, 16}), {37}, head.group, 1.0, head.context),
               std::exception);
}

}  // namespace
}  // namespace qlora::trainer
