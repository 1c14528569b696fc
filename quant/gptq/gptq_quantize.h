// GPTQ: columns of a weight are rounded one after the other, and what rounding one does to the
// layer's outputs is made up for by those that are not rounded yet (Frantar et al. 2022, algorithm
// 1). With inputs x of calibration tokens,
//
//   H = 2/N Σ x xᵀ,    U upper triangular with Uᵀ U = (H + damp mean(diag H) I)⁻¹
//   e = (w_i - w'_i) / U_ii,    w_j -= e U_ij  for j > i        of each row, columns i in order
//
// The range of a group is that of its columns as the block of 128 columns in which it begins found
// them; within a block ranges are not corrected, in this as in the other implementations.
// Everything is float32. A scale is rounded to float16, as files hold it, before codes are made
// with it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "quant/gptq/gptq_options.h"
#include "quant/grouped/grouped.h"

namespace qlora::quant {

// H of the inputs that layers share.
class GptqHessian {
 public:
  explicit GptqHessian(int64_t in) : in_(in) {}

  // x: [tokens, in] of a floating type, on one device every time.
  void add(const at::Tensor& x);
  int64_t tokens() const { return tokens_; }
  // float32 [in, in]; zeros without tokens.
  at::Tensor matrix() const;

 private:
  int64_t in_, tokens_ = 0;
  at::Tensor sum_;  // 2/N Σ x xᵀ
};

// What the weights of one Hessian share.
struct GptqFactor {
  at::Tensor upper;  // U, float32 [in, in], in the order of rounding
  at::Tensor order;  // int64 [in], the columns in that order; undefined: as they are
  at::Tensor dead;   // bool [in], columns whose inputs were always zero
};

// hessian: float32 [in, in]. Where the matrix is too close to singular, damp is raised by steps of
// 0.01. Error naming the module if it is not finite.
GptqFactor gptq_factor(const at::Tensor& hessian, const GptqOptions& options,
                       const std::string& module);

// weight: [out, in] of a floating type, on the factor's device. Columns that are dead become zero.
// Scales are float16; zeros uint8, or none and `zero` if symmetric; group_of only where groups are
// not neighbouring columns. The result lies on the CPU. Error naming the module if a scale is
// beyond float16.
GroupedTensor gptq_quantize(const at::Tensor& weight, const GptqFactor& factor,
                            const GptqOptions& options, const std::string& module);

// The same without any inputs: every column rounded as it is, in groups of neighbouring columns.
GroupedTensor round_to_nearest(const at::Tensor& weight, const GptqOptions& options,
                               const std::string& module);

}  // namespace qlora::quant
