// A frozen weight as AQLM holds it (Egiazarian et al. 2024, Extreme Compression of Large Language
// Models via Additive Quantization): each block of out_group rows and in_group columns is a sum of
// one entry of each codebook, times a scale of its rows (aqlm_kernels.h), in float32 and rounded
// once to what a product takes.
#pragma once

#include "quant/frozen_weight.h"

namespace qlora::quant {

struct AqlmTensor {
  at::Tensor codes;      // [out / out_group, in / in_group, C], int8 or int16: entry modulo 2^b
  at::Tensor codebooks;  // [C, 2^b, out_group, in_group], float16, bfloat16 or float32
  at::Tensor scales;     // [out / out_group], float16, bfloat16 or float32

  int64_t out() const { return codes.size(0) * codebooks.size(2); }
  int64_t in() const { return codes.size(1) * codebooks.size(3); }
};

// "aqlm, 2x8": two codebooks of 2^8 entries.
std::string aqlm_format_name(int64_t num_codebooks, int64_t bits);

class AqlmWeight final : public FrozenWeight {
 public:
  // Error unless shapes, types and devices fit each other.
  explicit AqlmWeight(AqlmTensor weight);

  int64_t out_features() const override { return weight_.out(); }
  int64_t in_features() const override { return weight_.in(); }
  at::Device device() const override { return weight_.codes.device(); }
  std::string format() const override;
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override;
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // "codes", "codebooks" and "scales".
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override {
    return {&weight_.codes, &weight_.codebooks, &weight_.scales};
  }

 private:
  AqlmTensor weight_;
};

}  // namespace qlora::quant
