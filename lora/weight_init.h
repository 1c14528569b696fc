// Initialisations that look at the frozen weight W and change it, layer by layer while the base is
// loaded. Q() quantizes and dequantizes, s is the adapter's scaling, [.]_r the truncated SVD.
//
//   loftq   repeat: D = Q(W - s B A);  s B A = [W - D]_r        base D, of the iteration whose
//           |W - D - s B A| is least (LoftQ, Li et al. 2023, algorithm 1)
//   pissa   s B A = [W]_r                                       base Q(W - s B A)
//   olora   W = Q R;  B = Q[:, :r], A = R[:r]                   base Q(W - s B A)
//
// The scaling is divided out: s B A is the low-rank part at any alpha and with rsLoRA. PEFT's own
// LoftQ leaves it in, so that its start is off for alpha other than rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "lora/initial_factors.h"
#include "lora/lora_options.h"
#include "quant/frozen_weight.h"
#include "quant/quantization_options.h"

namespace qlora::lora {

// ConfigError naming lora.rank if an init that changes the base cannot give a module of this size
// its rank: a matrix has no more components than its smaller side. `options`: of_module().
void check_rank_of_init(const LoraOptions& options, int64_t out, int64_t in,
                        const std::string& module);

// Whether this init is one of the above, or what PEFT calls one of that kind ("pissa_niter_16",
// "corda", "lora_ga").
bool init_changes_base(const std::string& init);

struct WeightInit {
  std::unique_ptr<quant::FrozenWeight> base;
  Factors factors;
  double plain_error = 0;  // |W - Q(W)| / |W|: what plain quantizing would have lost
  double error = 0;        // |W - base - s B A| / |W|
  int64_t iteration = 0;   // loftq: the one that was kept, from 1
};

// weight [out, in] in the dtype the base is quantized from. Error if the rank exceeds a side.
WeightInit init_from_weight(const LoraOptions& options, const at::Tensor& weight,
                            const quant::QuantizationOptions& quantization,
                            const std::string& module, uint64_t seed);

// W - s B A of `init` pissa or olora, with the rank and scaling of `options`: what PEFT makes of a
// base weight fp32 [out, in] as it loads an adapter that started so. The SVD is exact, also for
// PEFT's pissa_niter_N, which draws an approximation of it each time. Error if the rank exceeds a
// side.
at::Tensor without_principal_part(LoraOptions options, const std::string& init,
                                  const at::Tensor& weight, const std::string& module);

// LoftQ for a base that is stored quantized and stays as it is: s B A = [original - base]_r.
WeightInit init_from_original(const LoraOptions& options, const at::Tensor& original,
                              const quant::FrozenWeight& base, const std::string& module,
                              uint64_t seed);

}  // namespace qlora::lora
