// Device arithmetic shared by the quantization kernels. bitsandbytes builds its CUDA library with
// fast-math: subnormals are flushed and the reciprocal is the hardware's approximation. Codes shall
// equal its codes, so the kernels say the same instructions here, whatever flags this project is
// built with.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "base/error.h"

namespace qlora::quant::cuda {

__device__ inline float multiply_flushed(float a, float b) {
  float product;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
  return product;
}

__device__ inline float reciprocal_approximate(float a) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(a));
  return reciprocal;
}

// |x| as bits, subnormals as 0. Compared as integers a NaN is the greatest, so that it cannot hide
// in a maximum.
__device__ inline uint32_t magnitude_bits(float x) {
  const uint32_t bits = __float_as_uint(x) & 0x7fffffffu;
  return bits < 0x00800000u ? 0u : bits;
}

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float to_float(__half value) { return __half2float(value); }

__device__ inline void store(float value, float& out) { out = value; }
__device__ inline void store(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }
__device__ inline void store(float value, __half& out) { out = __float2half_rn(value); }

// `count` elements that move in 16-byte pieces.
template <typename T, int kCount>
struct alignas(16) Vector {
  static_assert(sizeof(T) * kCount % 16 == 0, "whole pieces");
  T element[kCount];
};

template <typename T, int kCount>
__device__ inline void copy_vector(const void* from, void* to) {
  constexpr int kPieces = sizeof(T) * kCount / 16;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) static_cast<uint4*>(to)[i] = static_cast<const uint4*>(from)[i];
}

inline bool aligned_to(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// Greatest of the `team` neighbouring lanes (a power of two up to 32), known to all of them.
__device__ inline uint32_t greatest_of_lanes(uint32_t value, int team) {
  for (int distance = team / 2; distance > 0; distance /= 2)
    value = max(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// The same over a team of lanes, or over the whole thread block where it is the team. `shared`
// holds 32 words.
__device__ inline uint32_t greatest_of_team(uint32_t value, int team, uint32_t* shared) {
  value = greatest_of_lanes(value, team < 32 ? team : 32);
  if (team <= 32) return value;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return greatest_of_lanes(lane < warps ? shared[lane] : 0u, 32);
}

inline void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    fail<Error>("{}: the kernel could not be launched: {}", kernel, cudaGetErrorString(error));
}

}  // namespace qlora::quant::cuda
