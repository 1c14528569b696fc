#include "lora/weight_init.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/seed.h"
#include "lora/truncated_svd.h"
#include "quant/make_frozen_weight.h"

namespace qlora::lora {
namespace {

at::Tensor values_of(const quant::FrozenWeight& weight, at::Device device) {
  at::Tensor values = at::empty({weight.out_features(), weight.in_features()},
                                at::TensorOptions().dtype(at::kFloat).device(device));
  weight.dequantize_rows(0, 0, weight.out_features(), values);
  return values;
}

// One layer on its way from W to (base, A, B).
struct Layer {
  const LoraOptions& options;
  const quant::QuantizationOptions& quantization;
  const std::string& module;
  at::ScalarType dtype;
  uint64_t key;

  // The scaled product sqrt(S) on both sides, as PEFT splits it.
  Factors factors_of(const at::Tensor& matrix) const {
    const TruncatedSvd svd = truncated_svd(matrix, options.rank, options.loftq.svd == "exact", key);
    const at::Tensor root = at::sqrt(svd.s / options.scaling());
    return {root.unsqueeze(1) * svd.vh, svd.u * root};
  }

  at::Tensor product(const Factors& factors) const {
    return factors.b.mm(factors.a).mul_(options.scaling());
  }

  std::unique_ptr<quant::FrozenWeight> quantized(const at::Tensor& values) const {
    return quant::make_frozen_weight(values.to(dtype).contiguous(), quantization, module);
  }
};

WeightInit loftq(const Layer& layer, const at::Tensor& weight) {
  WeightInit best;
  double least = INFINITY;
  at::Tensor rest = weight;
  for (int64_t i = 1; i <= layer.options.loftq.iterations; ++i) {
    auto base = layer.quantized(rest);
    const at::Tensor residual = weight - values_of(*base, weight.device());
    if (i == 1) best.plain_error = residual.norm().item<double>();
    Factors factors = layer.factors_of(residual);
    const at::Tensor low_rank = layer.product(factors);
    const double error = (residual - low_rank).norm().item<double>();
    if (error < least) {
      least = error;
      best.base = std::move(base);
      best.factors = std::move(factors);
      best.iteration = i;
    }
    rest = weight - low_rank;
  }
  best.error = least;
  return best;
}

// pissa or olora.
Factors principal_factors(const Layer& layer, const at::Tensor& weight) {
  if (layer.options.init == "pissa") return layer.factors_of(weight);
  const auto [q, r] = at::linalg_qr(weight, "reduced");
  return {r.narrow(0, 0, layer.options.rank).contiguous(),
          q.narrow(1, 0, layer.options.rank).contiguous()};
}

WeightInit principal_part(const Layer& layer, const at::Tensor& weight) {
  WeightInit result;
  result.factors = principal_factors(layer, weight);
  const at::Tensor rest = weight - layer.product(result.factors);
  result.base = layer.quantized(rest);
  result.error = (rest - values_of(*result.base, weight.device())).norm().item<double>();
  const auto plain = layer.quantized(weight);
  result.plain_error = (weight - values_of(*plain, weight.device())).norm().item<double>();
  return result;
}

void make_relative(WeightInit& result, double norm) {
  if (norm <= 0) return;
  result.plain_error /= norm;
  result.error /= norm;
}

}  // namespace

void check_rank_of_init(const LoraOptions& options, int64_t out, int64_t in,
                        const std::string& module) {
  const int64_t most = std::min(out, in);
  if (options.rank > most)
    fail<ConfigError>("lora.rank: init {} needs a rank of at most {} for {}, got {}", options.init,
                      most, module, options.rank);
}

bool init_changes_base(const std::string& init) {
  return init == "loftq" || init.starts_with("pissa") || init == "olora" || init == "corda" ||
         init == "lora_ga";
}

WeightInit init_from_weight(const LoraOptions& options, const at::Tensor& weight,
                            const quant::QuantizationOptions& quantization,
                            const std::string& module, uint64_t seed) {
  at::NoGradGuard no_grad;
  check_rank_of_init(options, weight.size(0), weight.size(1), module);
  const Layer layer{options, quantization, module, weight.scalar_type(),
                    random_key(seed, module + ".svd")};
  const at::Tensor values = weight.to(at::kFloat);
  WeightInit result =
      options.init == "loftq" ? loftq(layer, values) : principal_part(layer, values);
  make_relative(result, values.norm().item<double>());
  return result;
}

at::Tensor without_principal_part(LoraOptions options, const std::string& init,
                                  const at::Tensor& weight, const std::string& module) {
  at::NoGradGuard no_grad;
  options.init = init;
  options.loftq.svd = "exact";
  check_rank_of_init(options, weight.size(0), weight.size(1), module);
  const quant::QuantizationOptions none;
  const Layer layer{options, none, module, at::kFloat, 0};
  return weight - layer.product(principal_factors(layer, weight));
}

WeightInit init_from_original(const LoraOptions& options, const at::Tensor& original,
                              const quant::FrozenWeight& base, const std::string& module,
                              uint64_t seed) {
  at::NoGradGuard no_grad;
  check_rank_of_init(options, original.size(0), original.size(1), module);
  const quant::QuantizationOptions none;
  const Layer layer{options, none, module, at::kFloat, random_key(seed, module + ".svd")};
  const at::Tensor values = original.to(at::kFloat);
  const at::Tensor residual = values - values_of(base, values.device());
  WeightInit result;
  result.factors = layer.factors_of(residual);
  result.plain_error = residual.norm().item<double>();
  result.error = (residual - layer.product(result.factors)).norm().item<double>();
  result.iteration = 1;
  make_relative(result, values.norm().item<double>());
  return result;
}

}  // namespace qlora::lora
