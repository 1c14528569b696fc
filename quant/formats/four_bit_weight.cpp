#include "quant/formats/four_bit_weight.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/profile.h"
#include "quant/formats/bitsandbytes_layout.h"
#include "quant/products/product.h"

namespace qlora::quant {

FourBitWeight::FourBitWeight(const at::Tensor& weight, FourBitLayout layout, bool double_quant,
                             const std::string& name)
    : shape_(WeightShape::of(weight.sizes().vec(), name.c_str())),
      dtype_(weight.scalar_type()),
      quantized_(quantize_four_bit(weight, layout, double_quant, name)) {}

FourBitWeight::FourBitWeight(FourBitTensor quantized, WeightShape shape, at::ScalarType dtype)
    : shape_(shape), dtype_(dtype), quantized_(std::move(quantized)) {
  check(quantized_.num_elements == shape.num_elements(), "FourBitWeight: {} elements are not [{}]",
        quantized_.num_elements, fmt::join(shape.sizes(), ", "));
  check_four_bit(quantized_);
}

std::string FourBitWeight::format() const {
  const std::string code = quantized_.layout.code == FourBitCode::kNf4 ? "nf4" : "fp4";
  return quantized_.scales ? code + "+dq" : code;
}

void FourBitWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                    at::Tensor& out) const {
  const ProfileScope scope("dequantize");
  const int64_t first = shape_.first_row(expert, begin, end, "FourBitWeight") * shape_.in;
  const int64_t last = first + (end - begin) * shape_.in;
  // A 16-bit original was rounded before it was quantized: an fp32 product sees values rounded
  // alike.
  if (out.scalar_type() == at::kFloat && dtype_ != at::kFloat) {
    at::Tensor rounded = at::empty(out.sizes(), out.options().dtype(dtype_));
    dequantize_range(quantized_, first, last, rounded);
    out.copy_(rounded);
  } else {
    dequantize_range(quantized_, first, last, out);
  }
}

std::unique_ptr<RowsProduct> FourBitWeight::rows_product(const at::Tensor& x,
                                                         int64_t expert) const {
  if (shape_.in % quantized_.layout.block_size != 0) return FrozenWeight::rows_product(x, expert);
  const bool in_float = product_dtype(x) == at::kFloat;  // rounded as dequantize_rows does
  return four_bit_rows_product(quantized_, shape_.first_row(expert, 0, shape_.out, "FourBitWeight"),
                               in_float ? dtype_ : x.scalar_type(), x);
}

std::vector<at::Tensor*> FourBitWeight::parts() {
  FourBitTensor& q = quantized_;
  if (!q.scales) return {&q.packed, &q.absmax};
  return {&q.packed, &q.scales->codes, &q.scales->nested_absmax, &q.scales->offset, &q.scales->map};
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
  all.push_back(quant_state_tensor(q, shape_, dtype_));
  return all;
}

}  // namespace qlora::quant
