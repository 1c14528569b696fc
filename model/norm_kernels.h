#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::model {

// Matrices are [tokens, groups * size] and contiguous but for x and d_x, whose rows lie `stride`
// elements apart. Every group of every row is normed by itself.
struct NormShape {
  quant::ElementType type;  // of the untyped matrices
  int64_t tokens, groups, size;
  bool weight_for_each_group;  // weight and bias are [groups, size]; else [size]
  bool layer;                  // LayerNorm; else RMSNorm

  int64_t width() const { return groups * size; }
  int64_t weight_groups() const { return weight_for_each_group ? groups : 1; }
};

// What a norm reads. Of the residual stream x is fp32, else it is of the shape's type.
struct NormInput {
  const void* x;
  int64_t stride;
  bool is_stream;
};

struct Norm {
  NormShape shape;
  NormInput in;
  const void* delta;  // of the stream: is added to x first; may be null
  float* sum;         // x + delta; null where there is no delta
  const float* weight;
  const float* bias;  // may be null; of RMSNorm it is
  float eps;
  void* normed;
  float *mean, *rstd;  // [tokens, groups]; mean is null for RMSNorm
};

struct NormBackward {
  NormShape shape;
  NormInput in;  // the sum, of the stream
  const float *mean, *rstd, *weight;
  const void* d_normed;
  const float* d_sum;  // of the stream: the gradient of the sum itself; null for zeros
  void* d_x;           // contiguous, typed as x
  void* d_delta;       // of the stream: the same in the shape's type; may be null
};

// Added to: Σ over tokens of d_normed · (x - mean) · rstd and of d_normed, in double.
struct NormWeightGradient {
  NormShape shape;
  NormInput in;
  const float *mean, *rstd;
  const void* d_normed;
  float *d_weight, *d_bias;  // as weight; either may be null
};

namespace cpu {
void norm(const Norm& arguments);
void norm_backward(const NormBackward& arguments);
void norm_weight_gradient(const NormWeightGradient& arguments);
}  // namespace cpu
namespace cuda {
void norm(const Norm& arguments, void* stream);
void norm_backward(const NormBackward& arguments, void* stream);
void norm_weight_gradient(const NormWeightGradient& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::model
