// A thread block for each token; a thread turns two elements of a head at a time.
#include "model/rotary_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::store;
using quant::cuda::to_float;

constexpr int kThreads = 128;

template <typename T>
__global__ void rotate_kernel(Rotate a) {
  const int64_t token = blockIdx.x;
  T* x = static_cast<T*>(a.x) + token * a.stride;
  for (int64_t pair = threadIdx.x; pair < a.heads * a.half; pair += kThreads) {
    const int64_t i = pair % a.half, head = pair / a.half * a.head_dim;
    const int64_t first = head + (a.pairs ? 2 * i : i), second = first + (a.pairs ? 1 : a.half);
    const float c = a.cos[token * a.half + i], s = a.sign * a.sin[token * a.half + i];
    const float u = to_float(x[first]), v = to_float(x[second]);
    store(u * c - v * s, x[first]);
    store(v * c + u * s, x[second]);
  }
}

}  // namespace

void rotate(const Rotate& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    rotate_kernel<typename decltype(tag)::Type>
        <<<static_cast<unsigned>(a.tokens), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  quant::cuda::check_launch("rotate");
}

}  // namespace qlora::model::cuda
