#include "quant/formats/int8_weight.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace qlora::quant {

Int8Weight::Int8Weight(Int8Tensor weight, Int8Products products)
    : weight_(std::move(weight)),
      shape_(WeightShape::of(weight_.codes.sizes().vec(), "Int8Weight")),
      products_(products) {
  const at::Tensor& codes = weight_.codes;
  const at::Tensor& absmax = weight_.absmax;
  check(codes.scalar_type() == at::kChar && codes.is_contiguous() &&
            absmax.scalar_type() == at::kFloat && absmax.is_contiguous() &&
            absmax.numel() == shape_.num_rows() && absmax.device() == codes.device(),
        "Int8Weight: need contiguous int8 codes and one float32 scale a row");
  weight_.codes = codes.view({shape_.num_rows(), shape_.in});
  check(at::isfinite(absmax).all().item<bool>() && (absmax >= 0).all().item<bool>(),
        "Int8Weight: the scales must be finite numbers >= 0");
}

int64_t Int8Weight::bytes() const {
  return static_cast<int64_t>(weight_.codes.nbytes() + weight_.absmax.nbytes());
}

void Int8Weight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                 at::Tensor& out) const {
  const int64_t first = shape_.first_row(expert, begin, end, "Int8Weight");
  dequantize_int8(weight_, first, first + end - begin, out);
}

Int8Tensor Int8Weight::expert(int64_t index) const {
  if (shape_.experts == 1 && index == 0) return weight_;
  const int64_t first = shape_.first_row(index, 0, shape_.out, "Int8Weight");
  return {weight_.codes.narrow(0, first, shape_.out), weight_.absmax.narrow(0, first, shape_.out)};
}

std::optional<Int8Factor> Int8Weight::int8_factor(int64_t expert) const {
  if (products_.weight_only) return std::nullopt;
  return Int8Factor{this->expert(expert), products_.threshold};
}

NamedTensors Int8Weight::state() const {
  return {{"weight", weight_.codes.view(shape_.sizes())},
          {"SCB", weight_.absmax},
          {"weight_format", at::zeros({}, at::kByte)}};  // 0: row-major
}

}  // namespace qlora::quant
