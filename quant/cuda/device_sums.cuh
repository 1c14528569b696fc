// Reductions over a warp, or a thread block of up to 1024 threads, a multiple of 32, in a fixed
// order.
#pragma once

#include <cuda_runtime.h>

namespace qlora::quant::cuda {

struct Sum {
  static constexpr float kNeutral = 0.0f;
  __device__ static float of(float a, float b) { return a + b; }
};
struct Greatest {
  static constexpr float kNeutral = -3.0e38f;
  __device__ static float of(float a, float b) { return fmaxf(a, b); }
};

// The reduction of every lane's `value`, known to all of them. All lanes must call it.
template <typename Operation>
__device__ inline float reduce_warp(float value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value = Operation::of(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// The reduction of every thread's `value`, known to all of them. `shared` holds 32 floats.
template <typename Operation>
__device__ inline float reduce_block(float value, float* shared) {
  value = reduce_warp<Operation>(value);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  __syncthreads();  // `shared` may still be read from the reduction before
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return reduce_warp<Operation>(lane < warps ? shared[lane] : Operation::kNeutral);
}

}  // namespace qlora::quant::cuda
