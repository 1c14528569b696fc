#include "quant/four_bit_weight.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace qlora::quant {

FourBitWeight::FourBitWeight(const at::Tensor& weight, FourBitLayout layout, bool double_quant)
    : out_(weight.size(0)),
      in_(weight.size(1)),
      dtype_(weight.scalar_type()),
      quantized_(quantize_four_bit(weight, layout, double_quant)) {}

std::string FourBitWeight::format() const {
  const std::string code = quantized_.layout.code == FourBitCode::kNf4 ? "nf4" : "fp4";
  return quantized_.scales ? code + "+dq" : code;
}

void FourBitWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                    at::Tensor& out) const {
  check(expert == 0, "FourBitWeight: there is one expert, asked for {}", expert);
  // A 16-bit original was rounded before it was quantized: an fp32 product sees values rounded
  // alike.
  if (out.scalar_type() == at::kFloat && dtype_ != at::kFloat) {
    at::Tensor rounded = at::empty(out.sizes(), out.options().dtype(dtype_));
    dequantize_range(quantized_, begin * in_, end * in_, rounded);
    out.copy_(rounded);
  } else {
    dequantize_range(quantized_, begin * in_, end * in_, out);
  }
}

NamedTensors FourBitWeight::state() const {
  NamedTensors all{{"", quantized_.packed}};
  if (quantized_.scales) {
    all.emplace_back(".absmax", quantized_.scales->codes);
    all.emplace_back(".nested_absmax", quantized_.scales->nested_absmax);
    all.emplace_back(".nested_offset", quantized_.scales->offset);
  } else {
    all.emplace_back(".absmax", quantized_.absmax);
  }
  return all;
}

}  // namespace qlora::quant
