// A thread block for each group of a token.
#include <algorithm>
#include <type_traits>

#include "model/norm_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/device_sums.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::check_launch;
using quant::cuda::reduce_block;
using quant::cuda::store;
using quant::cuda::Sum;
using quant::cuda::to_float;
using quant::cuda::with_device_type;

constexpr int kMostThreads = 256;

// Where a block's group lies.
struct Place {
  int64_t in_x, in_rows, in_weight;
};

__device__ inline Place place_of(const NormShape& s, int64_t stride, int64_t row) {
  const int64_t token = row / s.groups, column = row % s.groups * s.size;
  return {token * stride + column, row * s.size, s.weight_for_each_group ? column : 0};
}

template <typename X, typename T>
__global__ void forward(Norm a) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x, size = a.shape.size;
  const Place at = place_of(a.shape, a.in.stride, row);
  const X* x = static_cast<const X*>(a.in.x) + at.in_x;
  const float *weight = a.weight + at.in_weight, *bias = a.bias ? a.bias + at.in_weight : nullptr;
  T* normed = static_cast<T*>(a.normed) + at.in_rows;
  if constexpr (std::is_same_v<X, float>)
    if (a.delta) {
      const T* delta = static_cast<const T*>(a.delta) + at.in_rows;
      float* sum = a.sum + at.in_rows;
      for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
        sum[i] = x[i] + to_float(delta[i]);  // read again by the same thread
      x = sum;
    }
  float mean = 0.0f;
  if (a.shape.layer) {
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) mean += to_float(x[i]);
    mean = reduce_block<Sum>(mean, shared) / static_cast<float>(size);
    if (threadIdx.x == 0) a.mean[row] = mean;
  }
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    const float centred = to_float(x[i]) - mean;
    squares += centred * centred;
  }
  squares = reduce_block<Sum>(squares, shared);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(size) + a.eps);
  if (threadIdx.x == 0) a.rstd[row] = scale;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    const float value = (to_float(x[i]) - mean) * scale * weight[i];
    store(bias ? value + bias[i] : value, normed[i]);
  }
}

template <typename X, typename T>
__global__ void backward(NormBackward a) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x, size = a.shape.size;
  const Place at = place_of(a.shape, a.in.stride, row);
  const X* x = static_cast<const X*>(a.in.x) + at.in_x;
  const float* weight = a.weight + at.in_weight;
  const T* dy = static_cast<const T*>(a.d_normed) + at.in_rows;
  X* dx = static_cast<X*>(a.d_x) + at.in_rows;
  T* d_delta = a.d_delta ? static_cast<T*>(a.d_delta) + at.in_rows : nullptr;
  const float* d_sum = a.d_sum ? a.d_sum + at.in_rows : nullptr;
  const float mean = a.shape.layer ? a.mean[row] : 0.0f, rstd = a.rstd[row];
  float dot = 0.0f, shift = 0.0f;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    const float through_weight = to_float(dy[i]) * weight[i];
    dot += through_weight * (to_float(x[i]) - mean);
    shift += through_weight;
  }
  dot = reduce_block<Sum>(dot, shared) * rstd * rstd * rstd / static_cast<float>(size);
  shift = a.shape.layer ? reduce_block<Sum>(shift, shared) * rstd / static_cast<float>(size) : 0.0f;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    const float d = (d_sum ? d_sum[i] : 0.0f) + rstd * weight[i] * to_float(dy[i]) -
                    (to_float(x[i]) - mean) * dot - shift;
    store(d, dx[i]);
    if (d_delta) store(d, d_delta[i]);
  }
}

// A thread for each column of the weight, which takes the tokens in their order.
template <typename X, typename T>
__global__ void weight_gradient(NormWeightGradient a) {
  const NormShape& s = a.shape;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t weight_groups = s.weight_for_each_group ? s.groups : 1;
  if (i >= weight_groups * s.size) return;
  const int64_t each = s.groups / weight_groups, width = s.groups * s.size;
  double weight = 0.0, bias = 0.0;
  for (int64_t t = 0; t < s.tokens; ++t)
    for (int64_t g = 0; g < each; ++g) {
      const int64_t column = i + g * s.size, row = t * s.groups + column / s.size;
      const float x = to_float(static_cast<const X*>(a.in.x)[t * a.in.stride + column]);
      const float dy = to_float(static_cast<const T*>(a.d_normed)[t * width + column]);
      const float mean = s.layer ? a.mean[row] : 0.0f;
      weight += static_cast<double>(dy * ((x - mean) * a.rstd[row]));
      bias += static_cast<double>(dy);
    }
  if (a.d_weight) a.d_weight[i] += static_cast<float>(weight);
  if (a.d_bias) a.d_bias[i] += static_cast<float>(bias);
}

// Calls body(tag of x, tag of the other matrices).
template <typename Body>
void with_types(const NormShape& shape, const NormInput& in, const Body& body) {
  with_device_type(shape.type, [&](auto tag) {
    if (in.is_stream)
      body(quant::cuda::TypeTag<float>(), tag);
    else
      body(tag, tag);
  });
}

unsigned blocks_of(const NormShape& s) { return static_cast<unsigned>(s.tokens * s.groups); }

// Whole warps.
int threads_of(const NormShape& s) {
  return static_cast<int>(std::min<int64_t>(kMostThreads, (s.size + 31) / 32 * 32));
}

}  // namespace

void norm(const Norm& a, void* stream) {
  if (a.shape.tokens == 0) return;
  with_types(a.shape, a.in, [&](auto x, auto tag) {
    forward<typename decltype(x)::Type, typename decltype(tag)::Type>
        <<<blocks_of(a.shape), threads_of(a.shape), 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("norm");
}

void norm_backward(const NormBackward& a, void* stream) {
  if (a.shape.tokens == 0) return;
  with_types(a.shape, a.in, [&](auto x, auto tag) {
    backward<typename decltype(x)::Type, typename decltype(tag)::Type>
        <<<blocks_of(a.shape), threads_of(a.shape), 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("norm_backward");
}

void norm_weight_gradient(const NormWeightGradient& a, void* stream) {
  constexpr int kColumns = 32;
  const int64_t columns = a.shape.weight_groups() * a.shape.size;
  const auto blocks = static_cast<unsigned>((columns + kColumns - 1) / kColumns);
  with_types(a.shape, a.in, [&](auto x, auto tag) {
    weight_gradient<typename decltype(x)::Type, typename decltype(tag)::Type>
        <<<blocks, kColumns, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("norm_weight_gradient");
}

}  // namespace qlora::model::cuda
