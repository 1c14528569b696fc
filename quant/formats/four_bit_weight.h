// A frozen weight in 4 bits (quant/nf4/nf4.h). Rows are dequantized into a reused buffer for each
// product, forward and backward. Stacked experts are quantized as one flat tensor, as bitsandbytes
// does with a parameter of three dimensions: where out * in is no multiple of the block size, a
// block spans the border of two experts.
#pragma once

#include "quant/frozen_weight.h"
#include "quant/nf4/nf4.h"

namespace qlora::quant {

class FourBitWeight final : public FrozenWeight {
 public:
  // Quantizes weight [out, in] or [experts, out, in] (bf16, fp16 or fp32, contiguous). Its dtype is
  // remembered: dequantized values are rounded to it, as bitsandbytes does, before they are cast to
  // what a product computes in. `name` is what errors call it.
  FourBitWeight(const at::Tensor& weight, FourBitLayout layout, bool double_quant,
                const std::string& name = "the weight");
  // One that was quantized before, from `shape` of `dtype`. Error if the parts do not fit.
  FourBitWeight(FourBitTensor quantized, WeightShape shape, at::ScalarType dtype);

  int64_t num_experts() const override { return shape_.experts; }
  int64_t out_features() const override { return shape_.out; }
  int64_t in_features() const override { return shape_.in; }
  at::Device device() const override { return quantized_.packed.device(); }
  std::string format() const override;
  // Values are rounded to the original's type.
  WeightTraits traits() const override { return {WeightKind::kDecoded, dtype_}; }
  int64_t bytes() const override { return quantized_.bytes(); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // Straight from the packed codes where rows are whole blocks.
  std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const override;
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override;

 private:
  WeightShape shape_;
  at::ScalarType dtype_;
  FourBitTensor quantized_;
};

}  // namespace qlora::quant
