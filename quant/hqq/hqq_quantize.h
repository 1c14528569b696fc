// HQQ: b-bit codes whose zeros are fitted without data (Badri and Shaji 2023, "Half-Quadratic
// Quantization"). The weight, read row by row, is cut into groups of group_size numbers that share
// a scale and a zero:
//
//   axis 1  [groups, group_size], a group is a row
//   axis 0  [group_size, groups], a group is a column
//
//   code = clamp(round(w s + z), 0, 2^b - 1)
//   w    ~ (code - z) / s
//
// s spans the group's range. z is found by up to 20 steps of a proximal solver for |W - W'|_p^p,
// p = 0.7: with W_e the error shrunk towards zero, z = mean(code - (W - W_e) s). It ends with the
// first step that does not lower the mean error. All in float32 and in the order of operations of
// the package hqq 0.2.8 on a CPU, so that codes, scales and zeros are the same numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "quant/frozen_weight.h"

namespace qlora::quant {

struct HqqOptions {
  int bits = 4;             // 1, 2, 3, 4 or 8
  int64_t group_size = 64;  // 0: of each row (axis 1) or column (axis 0) of the matrix
  int axis = 1;

  // Throws ConfigError naming the option.
  void validate() const;
  // "hqq, 4 bit, group size 64, axis 1"
  std::string to_text() const;
};

struct QuantizedHqq {
  int bits = 4, axis = 1;
  int64_t out = 0, in = 0, group_size = 0;
  at::Tensor codes;          // uint8 [groups, group_size], or [group_size, groups] of axis 0
  at::Tensor scales, zeros;  // [groups, 1], or [1, groups] of axis 0; scales are 1 / s
};

// weight: [out, in] of a floating type. The codes are made with the float32 scales and zeros, which
// are then rounded to `stored`. The result lies on the CPU. ConfigError naming the module if the
// groups do not divide the weight, or fill no whole bytes.
QuantizedHqq hqq_quantize(const at::Tensor& weight, const HqqOptions& options,
                          at::ScalarType stored, const std::string& module);

// float32 [out, in], from the scales and zeros as they are stored.
at::Tensor hqq_dequantize(const QuantizedHqq& weight);

// The layer's tensors as transformers 4.57 writes them: "W_q", "scale", "zero" and what describes
// them, each a tensor of its own. Packing goes along the first dimension: a byte holds codes of
// rows that lie a half (4 bits), a quarter or an eighth of the matrix apart; 3-bit codes lie ten to
// an int32.
NamedTensors hqq_file_tensors(const QuantizedHqq& weight);

}  // namespace qlora::quant
