// Thread blocks of 256 threads, each for 1024 neighbouring elements of a token.
#include "model/swiglu_kernels.h"
#include "quant/device_arithmetic.cuh"
#include "quant/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::store;
using quant::cuda::to_float;

constexpr int kThreads = 256, kElements = 1024;

template <typename T>
__device__ const T* row(ConstRows rows) {
  return static_cast<const T*>(rows.data) + blockIdx.x * rows.stride;
}
template <typename T>
__device__ T* row(MutableRows rows) {
  return static_cast<T*>(rows.data) + blockIdx.x * rows.stride;
}

// Calls body(i) for the thread's share of a row.
template <typename Body>
__device__ void for_each_element(int64_t width, const Body& body) {
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kElements + threadIdx.x;
#pragma unroll
  for (int64_t i = begin; i < begin + kElements; i += kThreads)
    if (i < width) body(i);
}

template <typename T>
__global__ void forward(Swiglu a) {
  const T *gate = row<T>(a.gate), *up = row<T>(a.up);
  T* out = row<T>(a.out);
  for_each_element(a.width, [&](int64_t i) {
    const float g = to_float(gate[i]);
    store(g / (1.0f + expf(-g)) * to_float(up[i]), out[i]);
  });
}

template <typename T>
__global__ void backward(SwigluBackward a) {
  const T *gate = row<T>(a.gate), *up = row<T>(a.up), *dy = row<T>(a.dy);
  T *d_gate = row<T>(a.d_gate), *d_up = row<T>(a.d_up);
  for_each_element(a.width, [&](int64_t i) {
    const float g = to_float(gate[i]), d = to_float(dy[i]);
    const float s = 1.0f / (1.0f + expf(-g));
    store(d * to_float(up[i]) * s * (1.0f + g * (1.0f - s)), d_gate[i]);
    store(d * g * s, d_up[i]);
  });
}

dim3 grid_of(int64_t tokens, int64_t width) {
  return {static_cast<unsigned>(tokens), static_cast<unsigned>((width + kElements - 1) / kElements),
          1};
}

}  // namespace

void swiglu(const Swiglu& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    forward<typename decltype(tag)::Type>
        <<<grid_of(a.tokens, a.width), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  quant::cuda::check_launch("swiglu");
}

void swiglu_backward(const SwigluBackward& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    backward<typename decltype(tag)::Type>
        <<<grid_of(a.tokens, a.width), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  quant::cuda::check_launch("swiglu_backward");
}

}  // namespace qlora::model::cuda
