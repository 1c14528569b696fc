// A frozen weight of 8-bit floating-point codes (E4M3) with a scale for each block of rows and
// columns, as FP8 and MXFP8 models hold it:
//
//   W[r, i] = E4M3(code[r, i]) * scale[r / block_rows, i / block_columns]
//
// in float32, rounded once to what a product takes. Blocks of the whole matrix are one scale a
// tensor, of a row one a channel, of 1 x 32 those of MXFP8; the last ones may be cut short.
#pragma once

#include <string>

#include "quant/frozen_weight.h"

namespace qlora::quant {

struct Fp8Tensor {
  at::Tensor codes;   // uint8 [out, in]
  at::Tensor scales;  // [ceil(out / block_rows), ceil(in / block_columns)], float32, bfloat16,
                      // float16, or uint8: E8M0, 2^(code - 127)
  int64_t block_rows = 128, block_columns = 128;
};

// "fp8 (128x128)"; "fp8 (tensor)" and "fp8 (channel)" where a block is all of [out, in] or a row.
std::string fp8_format_name(int64_t out, int64_t in, int64_t block_rows, int64_t block_columns);

class Fp8Weight final : public FrozenWeight {
 public:
  // Error unless shapes, types and devices fit each other.
  explicit Fp8Weight(Fp8Tensor weight);

  int64_t out_features() const override { return weight_.codes.size(0); }
  int64_t in_features() const override { return weight_.codes.size(1); }
  at::Device device() const override { return weight_.codes.device(); }
  std::string format() const override {
    return fp8_format_name(out_features(), in_features(), weight_.block_rows,
                           weight_.block_columns);
  }
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override;
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // "weight.F8_E4M3" and "weight_scale", of E8M0 "weight_scale.F8_E8M0".
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override { return {&weight_.codes, &weight_.scales}; }

 private:
  Fp8Tensor weight_;
};

}  // namespace qlora::quant
