// A frozen weight as HQQ packs it (Badri and Shaji 2023, Half-Quadratic Quantization): codes of a
// grouped matrix with a floating scale and zero a group. The flat weight, row by row of [out, in],
// is cut into
//
//   axis 1: a matrix [out * in / group_size, group_size], of which each row is a group
//   axis 0: a matrix [group_size, out * in / group_size], of which each column is a group
//
// so that a group need not lie in one row of the weight. W = (code - zero) * scale in float32,
// rounded once to what a product takes. The packed form stays as it is in the file.
#pragma once

#include <string>

#include "quant/frozen_weight.h"

namespace qlora::quant {

struct HqqTensor {
  int bits = 4;  // of a field: 1, 2, 3, 4 or 8
  int axis = 0;
  int64_t out = 0, in = 0, group_size = 0;
  // [packed_rows, columns], uint8, or int32 of 3 bits: the rows of the grouped matrix in 8 / bits
  // (of 3 bits 10) parts of equal size, of which the first lies in the highest bits. Of 3 bits the
  // last part is filled up.
  at::Tensor packed;
  at::Tensor scales, zeros;  // [groups], both float32, bfloat16 or float16

  int64_t groups() const { return out * in / group_size; }
  int64_t rows() const { return axis == 1 ? groups() : group_size; }  // of the grouped matrix
  int64_t columns() const { return axis == 1 ? group_size : groups(); }
  int64_t packed_rows() const;
  int64_t bytes() const;
};

// Error naming `name` and the part unless sizes, shapes, types and devices fit each other.
void check_hqq(const HqqTensor& weight, const std::string& name);

// The codes of the weight, uint8 [out, in].
at::Tensor hqq_codes(const HqqTensor& weight);

class HqqWeight final : public FrozenWeight {
 public:
  // `format` is what reports call it: "hqq, 4 bit". Error of check_hqq().
  HqqWeight(HqqTensor weight, std::string format);

  int64_t out_features() const override { return weight_.out; }
  int64_t in_features() const override { return weight_.in; }
  at::Device device() const override { return weight_.packed.device(); }
  std::string format() const override { return format_; }
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override { return weight_.bytes(); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // "W_q", "scale" and "zero".
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override {
    return {&weight_.packed, &weight_.scales, &weight_.zeros};
  }

 private:
  HqqTensor weight_;
  std::string format_;
};

}  // namespace qlora::quant
