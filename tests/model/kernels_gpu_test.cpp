// The model's kernels on a GPU beside those of the CPU, and both within a model.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/device.h"
#include "model/activation.h"
#include "model/alibi.h"
#include "model/attention.h"
#include "model/rotary.h"
#include "tests/support/norms.h"
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
    for (const int64_t hidden : {37, 64, 576, 4096}) {
      const at::Tensor weight = at::rand({hidden}) + 0.5;
      expect_alike({at::randn({50, hidden}), at::randn({50, hidden}).to(type)}, tolerance(type),
                   [&](const std::vector<at::Tensor>& x) {
                     const auto out =
                         test::add_rms_norm(x[0], x[1], weight.to(x[0].device()), 1e-5, type);
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
    test::add_rms_norm(leaf, at::Tensor(), weight.to(device), 1e-5, at::kFloat, gradient)
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
                     return std::vector<at::Tensor>{activate(x[0], x[1])};
                   });
}

TEST_F(ModelKernelsGpu, EachActivationIsThatOfTheCpu) {
  for (const Activation kind :
       {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu, Activation::kRelu2}) {
    const ActivationRule rule{kind};
    for (const at::ScalarType type : kTypes) {
      const at::Tensor x = at::randn({33, 1500}).to(type), up = at::randn({33, 1500}).to(type);
      expect_alike({x, up}, tolerance(type), [&](const std::vector<at::Tensor>& t) {
        return std::vector<at::Tensor>{activate(t[0], t[1], rule)};
      });
      expect_alike({x}, tolerance(type), [&](const std::vector<at::Tensor>& t) {
        return std::vector<at::Tensor>{activate(t[0], at::Tensor(), rule)};
      });
    }
  }
  const ActivationRule clamped{Activation::kClampedSilu, 1.5, 1.3};
  for (const at::ScalarType type : kTypes)
    expect_alike(
        {at::randn({33, 3000}).to(type)}, tolerance(type), [&](const std::vector<at::Tensor>& t) {
          return std::vector<at::Tensor>{activate_halves(t[0], keep_halves(t[0], type), clamped)};
        });
}

TEST_F(ModelKernelsGpu, TheActivationHasTheSameBitsWhereverRowsLie) {
  const at::Device device("cuda:0");
  for (const at::ScalarType type : kTypes) {
    const at::Tensor gate = at::randn({21, 1504}).mul(3).to(device, type);
    const at::Tensor up = at::randn({21, 1504}).to(device, type);
    const at::Tensor dy = at::randn({21, 1504}).to(device, type);
    std::vector<std::vector<at::Tensor>> results;
    // At multiples of 16 bytes, and one element behind them.
    for (const int64_t begin : {0, 1}) {
      const auto placed = [&](const at::Tensor& x) {
        const at::Tensor rows = at::zeros({21, 1600}, x.options()).narrow(1, begin, 1504);
        rows.copy_(x);
        return rows.requires_grad_(true);
      };
      const at::Tensor g = placed(gate), u = placed(up), y = activate(g, u);
      y.backward(dy);
      results.push_back({y.detach(), g.grad(), u.grad()});
    }
    for (size_t i = 0; i < results[0].size(); ++i)
      EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << i << " in " << c10::toString(type);
  }
}

TEST_F(ModelKernelsGpu, NormsOfOtherKindsAreThoseOfTheCpu) {
  const NormRule rules[] = {{NormKind::kRms, 1e-6, 1.0}, {NormKind::kLayer, 1e-5}};
  for (const NormRule& rule : rules)
    for (const at::ScalarType type : kTypes)
      for (const int64_t size : {37, 128}) {
        const at::Tensor weight = at::rand({4, size}) + 0.5;
        const at::Tensor bias =
            rule.kind == NormKind::kLayer ? at::randn({4 * size}) : at::Tensor();
        expect_alike({at::randn({50, 4 * size}), at::randn({50, 4 * size}).to(type)},
                     tolerance(type), [&](const std::vector<at::Tensor>& x) {
                       const at::Device device = x[0].device();
                       const lora::NormWeight of_stream(weight.view({-1}).to(device),
                                                        bias.defined() ? bias.to(device) : bias);
                       const auto out = add_norm(x[0], x[1], of_stream, rule, type, true);
                       const at::Tensor own = norm_rows(x[1], 4, weight.to(device), rule, true);
                       const at::Tensor shared =
                           norm_rows(x[1], 4, weight[0].to(device), rule, true);
                       return std::vector<at::Tensor>{out.normed, out.residual, own, shared};
                     });
      }
}

// Four neighbours are read at once from columns 0 and 8, and one at a time from column 3.
TEST_F(ModelKernelsGpu, NormsOfHeadsReadRowsThatBeginAnywhere) {
  const NormRule rule{NormKind::kRms, 1e-6};
  for (const at::ScalarType type : kTypes)
    for (const int64_t begin : {0, 8, 3}) {
      const at::Tensor weight = at::rand({64}) + 0.5;
      expect_alike({at::randn({37, 5 * 64 + 12}).to(type)}, tolerance(type),
                   [&](const std::vector<at::Tensor>& x) {
                     return std::vector<at::Tensor>{norm_rows(
                         x[0].narrow(1, begin, 5 * 64), 5, weight.to(x[0].device()), rule, true)};
                   });
    }
}

TEST_F(ModelKernelsGpu, ANormThatIsMadeAgainHasTheSameBits) {
  const at::Device device("cuda:0");
  for (const NormRule& rule : {NormRule{NormKind::kRms, 1e-6}, NormRule{NormKind::kLayer, 1e-5}})
    for (const at::ScalarType type : kTypes)
      for (const int64_t hidden : {37, 64, 576, 4096}) {
        const lora::NormWeight weight = test::norm_weight((at::rand({hidden}) + 0.5).to(device));
        const at::Tensor residual = at::randn({50, hidden}).to(device),
                         delta = at::randn({50, hidden}).to(device, type);
        const NormOutput out = add_norm(residual, delta, weight, rule, type, true);
        EXPECT_TRUE(at::equal(norm_again(out.residual, weight, rule, type, true), out.normed))
            << hidden << " in " << c10::toString(type);
      }
}

TEST_F(ModelKernelsGpu, GradientsOfTrainedNormsOfHeadsAreThoseOfTheCpu) {
  const at::Tensor x = at::randn({70, 120}), dy = at::randn({70, 120});
  for (const at::Tensor& weight : {at::rand({3, 40}), at::rand({40})}) {  // of each head, of all
    std::vector<at::Tensor> weights, biases;
    for (const at::Device device : {at::Device("cpu"), at::Device("cuda:0")}) {
      const auto zeros = [&] { return at::zeros_like(weight).to(device); };
      lora::NormWeight norm = test::norm_weight(weight.to(device), zeros());
      norm.frozen_bias = weight.to(device);
      norm.trained_bias =
          std::make_unique<lora::TrainedTensor>(lora::TrainedTensor{norm.frozen_bias, zeros(), {}});
      norm_rows(x.to(device), 3, norm, {NormKind::kLayer, 1e-5}, true).backward(dy.to(device));
      weights.push_back(norm.trained->gradient);
      biases.push_back(norm.trained_bias->gradient);
    }
    expect_close(weights[1], weights[0], 1e-5, "weight gradient");
    expect_close(biases[1], biases[0], 1e-5, "bias gradient");
  }
}

TEST_F(ModelKernelsGpu, PartsOfHeadsAndPairsTurnAsOnTheCpu) {
  for (const bool pairs : {false, true}) {
    const RotarySpec spec{{}, 24, pairs};
    const at::Tensor x = at::randn({3, 120});
    for (const bool inverse : {false, true}) {
      at::Tensor cpu = x.clone(), gpu = x.to(at::Device("cuda:0"));
      rotate(cpu, Rotary(spec, 40, at::kCPU).at_positions({0, 5, 90}), inverse);
      rotate(gpu, Rotary(spec, 40, gpu.device()).at_positions({0, 5, 90}), inverse);
      expect_close(gpu, cpu, 1e-4, "rotation");
    }
  }
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

// Keys behind a gap of two elements do not lie as four neighbours are read at once.
TEST_F(ModelKernelsGpu, QueriesAndKeysTurnInOneLaunchAsOnTheCpu) {
  struct Case {
    bool pairs;
    int64_t gap;
  };
  const std::vector<int32_t> positions = {0, 1, 17, 90};
  for (const Case& c : {Case{false, 2}, Case{false, 4}, Case{true, 2}, Case{true, 4}}) {
    const Rotary on_cpu({{}, 48, c.pairs}, 64, at::kCPU);
    const RotaryTable table =
        Rotary({{}, 48, c.pairs}, 64, at::Device("cuda:0")).at_positions(positions);
    const auto q = [](const at::Tensor& x) { return x.narrow(1, 0, 9 * 64); };
    const auto k = [&](const at::Tensor& x) { return x.narrow(1, 9 * 64 + c.gap, 3 * 64); };
    for (const at::ScalarType type : kTypes)
      for (const bool inverse : {false, true}) {
        const at::Tensor cpu = at::randn({4, 12 * 64 + c.gap}).to(type);
        const at::Tensor gpu = cpu.to(at::Device("cuda:0")), alone = gpu.clone();
        rotate(q(cpu), k(cpu), on_cpu.at_positions(positions), inverse);
        rotate(q(gpu), k(gpu), table, inverse);
        rotate(q(alone), table, inverse);
        rotate(k(alone), table, inverse);
        expect_close(gpu, cpu, std::max(tolerance(type), 1e-4), "rotation");
        EXPECT_TRUE(at::equal(gpu, alone)) << c.gap << " in " << c10::toString(type);
      }
  }
}

TEST_F(ModelKernelsGpu, AttentionIsThatOfTheCpuInEveryDocument) {
  const AttentionShape shapes[] = {causal_attention(4, 2, 64), causal_attention(9, 3, 64),
                                   causal_attention(4, 4, 128), causal_attention(2, 1, 40)};
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
        const RotaryTable table = Rotary(rotary, shape.head_dim, device).at_positions(positions);
        if (device.is_cuda())
          context.boundaries = at::tensor(context.cu_seqlens, at::kInt).to(device);
        // Copies: attention rotates its inputs.
        const at::Tensor y =
            attention({x[0].clone(), x[1].clone(), x[2].clone()}, shape, &table, context, 0);
        at::NoGradGuard no_grad;
        const at::Tensor again =
            attention({x[0].clone(), x[1].clone(), x[2].clone()}, shape, &table, context, 0);
        EXPECT_TRUE(at::equal(y, again)) << "without a graph";
        return std::vector<at::Tensor>{y};
      });
    }
  }
}

// What families ask of attention beside the causal mask.
const std::function<void(AttentionShape&)> kRules[] = {
    [](AttentionShape& s) { s.window = 9; },
    [](AttentionShape& s) { s.window = 100; },
    [](AttentionShape& s) { s.softcap = 2; },
    [](AttentionShape& s) { s.position_bias = true; },
    [](AttentionShape& s) { s.sinks = true; },
    [](AttentionShape& s) { s.causal = false; },
    [](AttentionShape& s) {
      s.softcap = 3;
      s.window = 70;
      s.scale = 0.3f;
    },
    [](AttentionShape& s) {
      s.sinks = true;
      s.window = 64;
    },
    [](AttentionShape& s) {
      s.position_bias = true;
      s.layout = heads_in_groups(s.heads, s.kv_heads, s.head_dim);
    },
};

TEST_F(ModelKernelsGpu, AttentionUnderOtherRulesIsThatOfTheCpu) {
  for (size_t i = 0; i < std::size(kRules); ++i) {
    SCOPED_TRACE("rule " + std::to_string(i));
    AttentionShape shape = causal_attention(4, 2, 64);
    kRules[i](shape);
    const at::Tensor bias = alibi_biases({.slopes = alibi_slopes(shape.heads)}, 230, at::kCPU);
    const at::Tensor sinks = at::linspace(-1, 1, shape.heads);
    const bool is_one_tensor = shape.layout.q_step > 0;
    for (const at::ScalarType type : kTypes) {
      std::vector<at::Tensor> inputs;
      for (const int64_t heads : {shape.heads, shape.kv_heads, shape.kv_heads})
        inputs.push_back(at::randn({301, heads * shape.head_dim}).to(type));
      if (is_one_tensor) inputs = {at::randn({301, shape.width()}).to(type)};
      expect_alike(inputs, 4 * tolerance(type), [&](const std::vector<at::Tensor>& x) {
        const at::Device device = x[0].device();
        AttentionContext context;
        context.cu_seqlens = {0, 1, 71, 300, 301};
        if (device.is_cuda())
          context.boundaries = at::tensor(context.cu_seqlens, at::kInt).to(device);
        context.position_bias = bias.to(device);
        context.sinks = {sinks.to(device)};
        return std::vector<at::Tensor>{attention(x, shape, nullptr, context, 0)};
      });
    }
  }
}

TEST_F(ModelKernelsGpu, TheLossIsThatOfTheCpu) {
  // Rows of logits that begin anywhere, and at multiples of 16 bytes.
  for (const int vocab : {5003, 5008})
    for (const at::ScalarType type : kTypes) {
      const at::Tensor weight = at::randn({vocab, 64}).to(type);
      std::vector<int32_t> targets;
      for (int i = 0; i < 600; ++i) targets.push_back(i % 7 == 0 ? -100 : i * i % vocab);
      expect_alike(
          {at::randn({600, 64}).to(type)}, tolerance(type), [&](const std::vector<at::Tensor>& x) {
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

// All but one of a row are far below, infinitely so or not.
TEST_F(ModelKernelsGpu, TheLossOfRowsWithOneGreatLogitIsExact) {
  const at::Tensor weight = at::full({301, 1}, -300.0f);
  weight[77] = 200;
  for (const float least : {-300.0f, -std::numeric_limits<float>::infinity()}) {
    weight[3] = least;
    quant::Workspace workspace;
    lora::ForwardContext context;
    context.workspace = &workspace;
    std::vector<lora::LoraLinear> layers(1);
    layers[0].base = std::make_unique<quant::DenseWeight>(weight.to(at::Device("cuda:0")));
    const lora::LinearGroup head(std::move(layers));
    const at::Tensor hidden = at::ones({2, 1}, at::TensorOptions().device("cuda:0"));
    EXPECT_EQ(trainer::token_losses(hidden, {77, 300}, head, context),
              (std::vector<float>{0, 500}));
  }
}

}  // namespace
}  // namespace qlora::model
