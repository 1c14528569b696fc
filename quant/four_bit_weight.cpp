#include "quant/four_bit_weight.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/profile.h"
#include "quant/bitsandbytes_layout.h"

namespace qlora::quant {

FourBitWeight::FourBitWeight(const at::Tensor& weight, FourBitLayout layout, bool double_quant)
    : out_(weight.size(0)),
      in_(weight.size(1)),
      dtype_(weight.scalar_type()),
      quantized_(quantize_four_bit(weight, layout, double_quant)) {}

FourBitWeight::FourBitWeight(FourBitTensor quantized, int64_t out, int64_t in, at::ScalarType dtype)
    : out_(out), in_(in), dtype_(dtype), quantized_(std::move(quantized)) {
  check(quantized_.num_elements == out * in, "FourBitWeight: {} elements are not [{}, {}]",
        quantized_.num_elements, out, in);
  check_four_bit(quantized_);
}

std::string FourBitWeight::format() const {
  const std::string code = quantized_.layout.code == FourBitCode::kNf4 ? "nf4" : "fp4";
  return quantized_.scales ? code + "+dq" : code;
}

void FourBitWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                    at::Tensor& out) const {
  check(expert == 0, "FourBitWeight: there is one expert, asked for {}", expert);
  const ProfileScope scope("dequantize");
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
  const FourBitTensor& q = quantized_;
  NamedTensors all{{"weight", q.packed.view({-1, 1})}};
  all.emplace_back("weight.absmax", q.scales ? q.scales->codes : q.absmax);
  all.emplace_back("weight.quant_map", four_bit_table(q.layout.code));
  if (q.scales) {
    all.emplace_back("weight.nested_absmax", q.scales->nested_absmax);
    all.emplace_back("weight.nested_quant_map", q.scales->map);
  }
  all.push_back(quant_state_tensor(q, out_, in_, dtype_));
  return all;
}

}  // namespace qlora::quant
