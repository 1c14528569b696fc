// A thread block for each token; a thread turns two elements of a head at a time, of the first
// matrix's heads and then of the second's.
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
  const int half = static_cast<int>(a.half), of_first = static_cast<int>(a.first.heads) * half;
  const int pairs = of_first + static_cast<int>(a.second.heads) * half;
  T* in_first = static_cast<T*>(a.first.x) + token * a.first.stride;
  T* in_second = static_cast<T*>(a.second.x) + token * a.second.stride;
  const float *cos = a.cos + token * a.half, *sin = a.sin + token * a.half;
  for (int pair = threadIdx.x; pair < pairs; pair += kThreads) {
    const bool is_first = pair < of_first;
    const int place = is_first ? pair : pair - of_first, i = place % half;
    T* head = (is_first ? in_first : in_second) + place / half * a.head_dim;
    T *x = head + (a.pairs ? 2 * i : i), *y = x + (a.pairs ? 1 : half);
    const float c = cos[i], s = a.sign * sin[i], u = to_float(*x), v = to_float(*y);
    store(u * c - v * s, *x);
    store(v * c + u * s, *y);
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
