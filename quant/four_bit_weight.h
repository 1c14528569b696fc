// A frozen weight in 4 bits (nf4.h). Rows are dequantized into a reused buffer for each product,
// forward and backward.
#pragma once

#include "quant/frozen_weight.h"
#include "quant/nf4.h"

namespace qlora::quant {

class FourBitWeight final : public FrozenWeight {
 public:
  // Quantizes weight [out, in] (bf16, fp16 or fp32, contiguous). Its dtype is remembered:
  // dequantized values are rounded to it, as bitsandbytes does, before they are cast to what a
  // product computes in.
  FourBitWeight(const at::Tensor& weight, FourBitLayout layout, bool double_quant);
  // One that was quantized before, from [out, in] of `dtype`. Error if the parts do not fit.
  FourBitWeight(FourBitTensor quantized, int64_t out, int64_t in, at::ScalarType dtype);

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  at::Device device() const override { return quantized_.packed.device(); }
  std::string format() const override;
  int64_t bytes() const override { return quantized_.bytes(); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  NamedTensors state() const override;

 private:
  int64_t out_, in_;
  at::ScalarType dtype_;
  FourBitTensor quantized_;
};

}  // namespace qlora::quant
