// A thread block for each token.
#include "model/norm_kernels.h"
#include "quant/device_arithmetic.cuh"
#include "quant/device_sums.cuh"
#include "quant/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::check_launch;
using quant::cuda::reduce_block;
using quant::cuda::store;
using quant::cuda::Sum;
using quant::cuda::to_float;
using quant::cuda::with_device_type;

constexpr int kThreads = 256;

template <typename T>
__global__ void forward(AddRmsNorm a) {
  __shared__ float shared[32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * a.hidden;
  const T* delta = static_cast<const T*>(a.delta);
  T* normed = static_cast<T*>(a.normed);
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < a.hidden; i += kThreads) {
    const float x = a.residual[row + i] + (delta ? to_float(delta[row + i]) : 0.0f);
    if (a.residual_out) a.residual_out[row + i] = x;
    sum += x * x;
  }
  sum = reduce_block<Sum>(sum, shared);
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(a.hidden) + a.eps);
  if (threadIdx.x == 0) a.rstd[blockIdx.x] = scale;
  const float* x = a.residual_out ? a.residual_out : a.residual;
  for (int64_t i = threadIdx.x; i < a.hidden; i += kThreads)
    store(x[row + i] * scale * a.weight[i], normed[row + i]);
}

template <typename T>
__global__ void backward(AddRmsNormBackward a) {
  __shared__ float shared[32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * a.hidden;
  const T* dy = static_cast<const T*>(a.d_normed);
  T* d_delta = static_cast<T*>(a.d_delta);
  float dot = 0.0f;
  for (int64_t i = threadIdx.x; i < a.hidden; i += kThreads)
    dot += to_float(dy[row + i]) * a.weight[i] * a.residual[row + i];
  const float rstd = a.rstd[blockIdx.x];
  dot = reduce_block<Sum>(dot, shared) * rstd * rstd * rstd / static_cast<float>(a.hidden);
  for (int64_t i = threadIdx.x; i < a.hidden; i += kThreads) {
    const float d_out = a.d_residual_out ? a.d_residual_out[row + i] : 0.0f;
    const float dx = d_out + rstd * a.weight[i] * to_float(dy[row + i]) - a.residual[row + i] * dot;
    a.d_residual[row + i] = dx;
    if (d_delta) store(dx, d_delta[row + i]);
  }
}

// A thread for each column, which takes the tokens in their order.
template <typename T>
__global__ void weight_gradient(RmsNormWeightGradient a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.hidden) return;
  const T* dy = static_cast<const T*>(a.d_normed);
  double sum = 0.0;
  for (int64_t t = 0; t < a.tokens; ++t)
    sum += static_cast<double>(to_float(dy[t * a.hidden + i]) *
                               (a.residual[t * a.hidden + i] * a.rstd[t]));
  a.d_weight[i] += static_cast<float>(sum);
}

}  // namespace

void add_rms_norm(const AddRmsNorm& a, void* stream) {
  if (a.tokens == 0) return;
  with_device_type(a.type, [&](auto tag) {
    forward<typename decltype(tag)::Type>
        <<<static_cast<unsigned>(a.tokens), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("add_rms_norm");
}

void add_rms_norm_backward(const AddRmsNormBackward& a, void* stream) {
  if (a.tokens == 0) return;
  with_device_type(a.type, [&](auto tag) {
    backward<typename decltype(tag)::Type>
        <<<static_cast<unsigned>(a.tokens), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("add_rms_norm_backward");
}

void rms_norm_weight_gradient(const RmsNormWeightGradient& a, void* stream) {
  constexpr int kColumns = 32;
  const auto blocks = static_cast<unsigned>((a.hidden + kColumns - 1) / kColumns);
  with_device_type(a.type, [&](auto tag) {
    weight_gradient<typename decltype(tag)::Type>
        <<<blocks, kColumns, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("rms_norm_weight_gradient");
}

}  // namespace qlora::model::cuda
