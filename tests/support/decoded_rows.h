// What tests of frozen weights ask of them: rows decoded to each type on each instruction set, and
// products.
#pragma once

#include <ATen/ATen.h>

#include "base/instruction_set.h"
#include "quant/frozen_weight.h"

namespace qlora::test {

constexpr at::ScalarType kFloatingTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr InstructionSet kInstructionSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                               InstructionSet::kAvx512,
                                               InstructionSet::kAvx512Bfloat16};

inline at::Tensor decoded_rows(const quant::FrozenWeight& weight, int64_t begin, int64_t end,
                               at::ScalarType dtype = at::kFloat) {
  at::Tensor rows = at::empty({end - begin, weight.in_features()},
                              at::TensorOptions().dtype(dtype).device(weight.device()));
  weight.dequantize_rows(0, begin, end, rows);
  return rows;
}
inline at::Tensor decoded_rows(const quant::FrozenWeight& weight,
                               at::ScalarType dtype = at::kFloat) {
  return decoded_rows(weight, 0, weight.out_features(), dtype);
}

// Whether x Wᵀ of a few rows is that of the decoded rows but for the rounding of its sums: of n
// terms in float32, n 2^-24 of the sum of magnitudes at most.
inline bool multiplies_decoded_rows(const quant::FrozenWeight& weight) {
  const at::Tensor x = at::randn({3, weight.in_features()}, decoded_rows(weight, 0, 1).options());
  const at::Tensor wide = x.to(at::kDouble), w = decoded_rows(weight).to(at::kDouble);
  const double error = static_cast<double>(weight.in_features() + 2) * 0x1p-24;
  const at::Tensor bound = at::mm(wide.abs(), w.abs().t()) * error;
  quant::Workspace workspace;
  const at::Tensor found = weight.forward(x, workspace);
  return ((found - at::mm(wide, w.t())).abs() <= bound).all().item<bool>();
}

}  // namespace qlora::test
