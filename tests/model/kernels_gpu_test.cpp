// The model's kernels on a GPU beside those of the CPU, and both within a model.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "model/attention.h"
#include "model/norm.h"
#include "model/rotary.h"
#include "model/swiglu.h"
#include "trainer/loss.h"

namespace qlora::model {
namespace {

const at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

// Two steps between neighbouring numbers of `type`: the same sums in another order are rounded to
// neighbours at most. fp32 sums of some hundred terms differ by several of their last bits.
double tolerance(at::ScalarType type) {
  return type == at::kFloat ? 2e-5 : type == at::kHalf ? 2.0 / 1024 : 2.0 / 128;
}

void expect_close(const at::Tensor& gpu, const at::Tensor& cpu, double bound, const char* what) {
  ASSERT_EQ(gpu.scalar_type(), cpu.scalar_type());
  const at::Tensor expected = cpu.to(at::kDouble), found = gpu.cpu().to(at::kDouble);
  const double off = (found - expected).abs().max().item<double>();
  EXPECT_LE(off, bound * expected.abs().max().item<double>())
      << what << " in " << c10::toString(cpu.scalar_type());
}

// Runs on one device: leaves made of `inputs`, whose gradients come after the outputs.
template <typename F>
std::vector<at::Tensor> outputs_and_gradients(const std::vector<at::Tensor>& inputs,
                                              at::Device device, const F& f) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs)
    leaves.push_back(input.to(device).clone().requires_grad_(true));
  std::vector<at::Tensor> all = f(leaves);
  at::Tensor sum = at::zeros({}, at::TensorOptions().device(device));
  // Each output's gradient is a function of its place.
  for (const at::Tensor& out : all)
    sum = sum + (out.to(at::kFloat) *
                 at::arange(out.numel(), at::kFloat).mul(0.37).cos().view(out.sizes()).to(device))
                    .sum();
  sum.backward();
  for (at::Tensor& out : all) out = out.detach();
  for (const at::Tensor& leaf : leaves) all.push_back(leaf.grad());
  return all;
}

class ModelKernelsGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
    at::manual_seed(1);
  }
  template <typename F>
  void expect_alike(const std::vector<at::Tensor>& inputs, double bound, const F& f) {
    const auto cpu = outputs_and_gradients(inputs, at::kCPU, f);
    const auto gpu = outputs_and_gradients(inputs, at::Device("cuda:0"), f);
    ASSERT_EQ(cpu.size(), gpu.size());
    for (size_t i = 0; i < cpu.size(); ++i)
      expect_close(gpu[i], cpu[i], bound, ("result " + std::to_string(i)).c_str());
  }
};

TEST_F(ModelKernelsGpu, TheNormIsThatOfTheCpu) {
  for (const at::ScalarType type : kTypes) {
    for (const int64_t hidden : {37, 576, 4096}) {
      const at::Tensor weight = at::rand({hidden}) + 0.5;
      expect_alike({at::randn({50, hidden}), at::randn({50, hidden}).to(type)}, tolerance(type),
                   [&](const std::vector<at::Tensor>& x) {
                     const auto out =
                         add_rms_norm(x[0], x[1], weight.to(x[0].device()), 1e-5, type);
                     return std::vector<at::Tensor>{out.normed, out.residual};
                   });
    }
  }
}

TEST_F(ModelKernelsGpu, ATrainedNormsGradientIsThatOfTheCpu) {
  const at::Tensor residual = at::randn({300, 200}), weight = at::rand({200});
  std::vector<at::Tensor> gradients;
  for (const at::Device device : {at::Device("cpu"), at::Device("cuda:0")}) {
    const at::Tensor gradient = at::zeros({200}, at::TensorOptions().device(device));
    const at::Tensor leaf = residual.to(device).requires_grad_(true);
    add_rms_norm(leaf, at::Tensor(), weight.to(device), 1e-5, at::kFloat, gradient)
        .normed.square()
        .sum()
        .backward();
    gradients.push_back(gradient);
  }
  expect_close(gradients[1], gradients[0], 1e-6, "weight gradient");
}

TEST_F(ModelKernelsGpu, TheActivationIsThatOfTheCpu) {
  for (const at::ScalarType type : kTypes)
    for (const int64_t width : {1, 1500, 8192})
      expect_alike({at::randn({33, width}).mul(3).to(type), at::randn({33, width}).to(type)},
                   tolerance(type), [](const std::vector<at::Tensor>& x) {
                     return std::vector<at::Tensor>{swiglu(x[0], x[1])};
                   });
}

TEST_F(ModelKernelsGpu, RotationGoesWhereTheRowsLieAndBack) {
  const RotarySpec rotary{.rope = {}, .width = 64};
  const std::vector<int32_t> positions = {0, 1, 17, 40, 3000};
  for (const at::ScalarType type : kTypes) {
    const at::Tensor all = at::randn({5, 400}).to(type);
    for (const bool inverse : {false, true}) {
      at::Tensor cpu = all.clone(), gpu = all.to(at::Device("cuda:0"));
      rotate(cpu.narrow(1, 10, 192), Rotary(rotary, 64, at::kCPU).at_positions(positions), inverse);
      rotate(gpu.narrow(1, 10, 192), Rotary(rotary, 64, gpu.device()).at_positions(positions),
             inverse);
      // Angles of some thousand radians differ by the last bit of their product.
      expect_close(gpu, cpu, std::max(tolerance(type), 1e-3), "rotation");
      EXPECT_TRUE(at::equal(gpu.cpu().narrow(1, 202, 198), all.narrow(1, 202, 198)));
      EXPECT_TRUE(at::equal(gpu.cpu().narrow(1, 0, 10), all.narrow(1, 0, 10)));
    }
  }
}

TEST_F(ModelKernelsGpu, AttentionIsThatOfTheCpuInEveryDocument) {
  const AttentionShape shapes[] = {{4, 2, 64}, {9, 3, 64}, {4, 4, 128}, {2, 1, 40}};
  for (const AttentionShape& shape : shapes) {
    const RotarySpec rotary{.rope = {}, .width = shape.head_dim};
    AttentionContext context;
    context.cu_seqlens = {0, 1, 71, 300, 301};
    std::vector<int32_t> positions;
    for (size_t d = 0; d + 1 < context.cu_seqlens.size(); ++d)
      for (int32_t p = 0; p < context.cu_seqlens[d + 1] - context.cu_seqlens[d]; ++p)
        positions.push_back(p);
    const int64_t q = shape.heads * shape.head_dim, k = shape.kv_heads * shape.head_dim;
    for (const at::ScalarType type : kTypes) {
      const std::vector<at::Tensor> inputs = {
          at::randn({301, q}).to(type), at::randn({301, k}).to(type), at::randn({301, k}).to(type)};
      // Probabilities are rounded to the type on the way, here and there at other places.
      expect_alike(inputs, 4 * tolerance(type), [&](const std::vector<at::Tensor>& x) {
        const at::Device device = x[0].device();
        context.rotary = Rotary(rotary, shape.head_dim, device).at_positions(positions);
        if (device.is_cuda())
          context.boundaries = at::tensor(context.cu_seqlens, at::kInt).to(device);
        // Copies: attention rotates its inputs.
        const at::Tensor y = attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, context, 0);
        at::NoGradGuard no_grad;
        const at::Tensor again =
            attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, context, 0);
        EXPECT_TRUE(at::equal(y, again)) << "without a graph";
        return std::vector<at::Tensor>{y};
      });
    }
  }
}

TEST_F(ModelKernelsGpu, TheLossIsThatOfTheCpu) {
  for (const at::ScalarType type : kTypes) {
    const at::Tensor weight = at::randn({5003, 64}).to(type);
    std::vector<int32_t> targets;
    for (int i = 0; i < 600; ++i) targets.push_back(i % 7 == 0 ? -100 : i * i % 5003);
    expect_alike({at::randn({600, 64}).to(type)}, tolerance(type),
                 [&](const std::vector<at::Tensor>& x) {
                   quant::Workspace workspace;
                   lora::ForwardContext context;
                   context.workspace = &workspace;
                   std::vector<lora::LoraLinear> layers(1);
                   layers[0].base = std::make_unique<quant::DenseWeight>(weight.to(x[0].device()));
                   const lora::LinearGroup head(std::move(layers));
                   return std::vector<at::Tensor>{
                       trainer::fused_cross_entropy(x[0], targets, head, 0.01, context)};
                 });
  }
}

}  // namespace
}  // namespace qlora::model
