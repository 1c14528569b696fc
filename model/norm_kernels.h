#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// T is float, uint16_t (bf16 bits) or Float16. `delta` may be null, and `residual_out` then too;
// `rstd` is [tokens].
template <typename T>
void add_rms_norm(const float* residual, const T* delta, const float* weight, float eps,
                  int64_t tokens, int64_t hidden, float* residual_out, T* normed, float* rstd);

// d_residual (in: the gradient of the residual output; out: of the residual input), d_normed as T;
// `d_delta` may be null.
template <typename T>
void add_rms_norm_backward(const float* residual, const float* rstd, const float* weight,
                           const T* d_normed, int64_t tokens, int64_t hidden, float* d_residual,
                           T* d_delta);

// d_weight [hidden] += Σ over tokens of d_normed · residual · rstd, in double and in their order.
template <typename T>
void rms_norm_weight_gradient(const float* residual, const float* rstd, const T* d_normed,
                              int64_t tokens, int64_t hidden, float* d_weight);

}  // namespace qlora::model::cpu
