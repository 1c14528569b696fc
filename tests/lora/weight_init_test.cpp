#include "lora/weight_init.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "lora/truncated_svd.h"
#include "quant/make_frozen_weight.h"

namespace qlora::lora {
namespace {

at::Tensor made_weight(int64_t rows = 96, int64_t columns = 160) {
  // Some structure above the noise, as weights have.
  return (at::randn({rows, 6}).mm(at::randn({6, columns})) * 0.3 + at::randn({rows, columns})) *
         0.02;
}

at::Tensor values_of(const quant::FrozenWeight& weight) {
  at::Tensor values = at::empty({weight.out_features(), weight.in_features()}, at::kFloat);
  weight.dequantize_rows(0, 0, weight.out_features(), values);
  return values;
}

double frobenius(const at::Tensor& x) { return x.norm().item<double>(); }

quant::QuantizationOptions quantization(const std::string& method) {
  quant::QuantizationOptions options;
  options.method = method;
  return options;
}

LoraOptions options_of(const std::string& init, int64_t iterations = 5) {
  LoraOptions options;
  options.init = init;
  options.rank = 8;
  options.alpha = 24;  // scaling 3: what is not divided out shows
  options.loftq.iterations = iterations;
  options.loftq.svd = "exact";
  return options;
}

at::Tensor truncated(const at::Tensor& matrix, int64_t rank) {
  const auto [u, s, vh] = at::linalg_svd(matrix, false);
  return (u.narrow(1, 0, rank) * s.narrow(0, 0, rank)).mm(vh.narrow(0, 0, rank));
}

TEST(TruncatedSvd, TheExactOneIsTheBestApproximation) {
  const at::Tensor matrix = at::randn({40, 70});
  const TruncatedSvd svd = truncated_svd(matrix, 5, true, 1);
  EXPECT_TRUE(at::allclose((svd.u * svd.s).mm(svd.vh), truncated(matrix, 5), 1e-4, 1e-4));
}

TEST(TruncatedSvd, TheRandomizedOneLosesLittleOnNoiseAndNothingOnStructure) {
  const at::Tensor noise = at::randn({200, 300});
  const TruncatedSvd drawn = truncated_svd(noise, 8, false, 1);
  EXPECT_LT(frobenius(noise - (drawn.u * drawn.s).mm(drawn.vh)),
            1.005 * frobenius(noise - truncated(noise, 8)));
  const at::Tensor low = at::randn({200, 8}).mm(at::randn({8, 300}));
  const TruncatedSvd found = truncated_svd(low, 8, false, 1);
  EXPECT_LT(frobenius(low - (found.u * found.s).mm(found.vh)), 1e-4 * frobenius(low));
}

TEST(TruncatedSvd, TheSameKeyGivesTheSameBits) {
  const at::Tensor matrix = at::randn({200, 300});
  EXPECT_TRUE(
      at::equal(truncated_svd(matrix, 4, false, 9).u, truncated_svd(matrix, 4, false, 9).u));
}

// Any alpha, and rsLoRA: the adapter starts as the truncated SVD of what quantizing lost.
TEST(LoftQ, TheScaledProductIsTheTruncatedSvdOfTheResidual) {
  const at::Tensor weight = made_weight();
  for (const bool rslora : {false, true})
    for (const double alpha : {8.0, 16.0, 5.0}) {
      LoraOptions options = options_of("loftq", 1);
      options.alpha = alpha;
      options.use_rslora = rslora;
      const WeightInit found = init_from_weight(options, weight, quantization("nf4"), "m", 1);
      const at::Tensor residual = weight - values_of(*found.base);
      EXPECT_TRUE(at::allclose(options.scaling() * found.factors.b.mm(found.factors.a),
                               truncated(residual, 8), 1e-4, 1e-6));
    }
}

TEST(LoftQ, EveryFormatLosesLessThanPlainQuantizing) {
  const at::Tensor weight = made_weight();
  for (const char* method : {"nf4", "fp4", "int8"}) {
    const WeightInit found =
        init_from_weight(options_of("loftq"), weight, quantization(method), "m", 1);
    const double plain = frobenius(weight - values_of(*quant::make_frozen_weight(
                                                weight, quantization(method), "m"))) /
                         frobenius(weight);
    EXPECT_NEAR(found.plain_error, plain, 1e-6) << method;
    EXPECT_LT(found.error, 0.95 * plain) << method;
    const at::Tensor total = values_of(*found.base) + 3.0 * found.factors.b.mm(found.factors.a);
    EXPECT_NEAR(found.error, frobenius(weight - total) / frobenius(weight), 1e-6) << method;
  }
}

TEST(LoftQ, MoreIterationsNeverEndWorseThanOne) {
  const at::Tensor weight = made_weight();
  const double once =
      init_from_weight(options_of("loftq", 1), weight, quantization("nf4"), "m", 1).error;
  const WeightInit five =
      init_from_weight(options_of("loftq", 5), weight, quantization("nf4"), "m", 1);
  EXPECT_LE(five.error, once);
  EXPECT_GE(five.iteration, 1);
}

TEST(LoftQ, ABaseThatStaysAsItIsGetsTheResidualToItsOriginal) {
  const at::Tensor weight = made_weight();
  const auto base = quant::make_frozen_weight(weight, quantization("nf4"), "m");
  const WeightInit found = init_from_original(options_of("loftq"), weight, *base, "m", 1);
  EXPECT_EQ(found.base, nullptr);
  EXPECT_TRUE(at::allclose(3.0 * found.factors.b.mm(found.factors.a),
                           truncated(weight - values_of(*base), 8), 1e-4, 1e-6));
}

TEST(Pissa, BaseAndAdapterAreTheWeightTogether) {
  const at::Tensor weight = made_weight();
  for (const char* init : {"pissa", "olora"}) {
    const WeightInit found =
        init_from_weight(options_of(init), weight, quantization("none"), "m", 1);
    const at::Tensor low_rank = 3.0 * found.factors.b.mm(found.factors.a);
    EXPECT_LT(frobenius(values_of(*found.base) + low_rank - weight), 1e-6 * frobenius(weight))
        << init;
    EXPECT_GT(frobenius(low_rank), 0.1 * frobenius(weight)) << init;
  }
  const WeightInit pissa =
      init_from_weight(options_of("pissa"), weight, quantization("none"), "m", 1);
  EXPECT_TRUE(
      at::allclose(3.0 * pissa.factors.b.mm(pissa.factors.a), truncated(weight, 8), 1e-4, 1e-6));
}

TEST(WeightInit, ARankBeyondTheWeightIsRefused) {
  LoraOptions options = options_of("loftq");
  options.rank = 97;
  EXPECT_THROW(init_from_weight(options, made_weight(), quantization("nf4"), "m", 1), ConfigError);
}

}  // namespace
}  // namespace qlora::lora
