#pragma once

#include <cstdint>

#include "quant/element_type.h"

namespace qlora::model {

// All matrices are [tokens, hidden], contiguous; `type` is that of the untyped ones.
struct AddRmsNorm {
  const float* residual;
  const void* delta;  // may be null
  const float* weight;
  float eps;
  float* residual_out;  // residual + delta; may be null where there is no delta
  void* normed;
  float* rstd;  // [tokens]
  quant::ElementType type;
  int64_t tokens, hidden;
};

struct AddRmsNormBackward {
  const float *residual, *rstd, *weight;
  const void* d_normed;
  const float* d_residual_out;  // null for zeros
  float* d_residual;
  void* d_delta;  // the same, rounded; may be null
  quant::ElementType type;
  int64_t tokens, hidden;
};

struct RmsNormWeightGradient {
  const float *residual, *rstd;
  const void* d_normed;
  float* d_weight;  // [hidden] += Σ over tokens of d_normed · residual · rstd, in double
  quant::ElementType type;
  int64_t tokens, hidden;
};

namespace cpu {
void add_rms_norm(const AddRmsNorm& arguments);
void add_rms_norm_backward(const AddRmsNormBackward& arguments);
void rms_norm_weight_gradient(const RmsNormWeightGradient& arguments);
}  // namespace cpu
namespace cuda {
void add_rms_norm(const AddRmsNorm& arguments, void* stream);
void add_rms_norm_backward(const AddRmsNormBackward& arguments, void* stream);
void rms_norm_weight_gradient(const RmsNormWeightGradient& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::model
