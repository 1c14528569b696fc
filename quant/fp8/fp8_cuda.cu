// FP8 on CUDA: a thread widens eight codes of one scale, an 8-byte load and one or two 16-byte
// stores, or a single code where rows, blocks or the output are not aligned to that. E4M3 numbers
// are fp16 numbers of half as many bits, 2^8 times smaller, which the processor converts.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/with_device_type.cuh"
#include "quant/fp8/fp8_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;

__device__ float half_bits_to_float(uint32_t bits) {
  __half_raw raw;
  raw.x = static_cast<unsigned short>(bits);
  return __half2float(__half(raw));
}

__device__ float e4m3_to_float(uint32_t code) {
  return half_bits_to_float(((code & 0x80u) << 8) | ((code & 0x7fu) << 7)) * 256.0f;
}

__device__ float scale_at(const Fp8DequantizeArguments& a, int64_t i) {
  switch (a.scale_type) {
    case Fp8ScaleType::kFloat32:
      return static_cast<const float*>(a.scales)[i];
    case Fp8ScaleType::kBFloat16:
      return to_float(static_cast<const __nv_bfloat16*>(a.scales)[i]);
    case Fp8ScaleType::kFloat16:
      return to_float(static_cast<const __half*>(a.scales)[i]);
    default: {
      const uint32_t exponent = static_cast<const uint8_t*>(a.scales)[i];
      return __uint_as_float(exponent == 0 ? 0x00400000u : exponent << 23);
    }
  }
}

__device__ float scale_of(const Fp8DequantizeArguments& a, int64_t grid_columns, int64_t row,
                          int64_t column) {
  return scale_at(a, row / a.block_rows * grid_columns + column / a.block_columns);
}

template <typename T>
__global__ void widen_eight(Fp8DequantizeArguments a, int64_t grid_columns, int64_t pieces,
                            T* out) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const int64_t of_row = a.in / kPerThread;
  const int64_t row = a.begin + piece / of_row, column = piece % of_row * kPerThread;
  const uint2 words = *reinterpret_cast<const uint2*>(a.codes + row * a.in + column);
  const float scale = scale_of(a, grid_columns, row, column);
  Vector<T, kPerThread> result;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const uint32_t code = ((i < 4 ? words.x : words.y) >> (8 * (i % 4))) & 0xffu;
    store(__fmul_rn(e4m3_to_float(code), scale), result.element[i]);
  }
  copy_vector<T, kPerThread>(&result, out + piece * kPerThread);
}

template <typename T>
__global__ void widen_one(Fp8DequantizeArguments a, int64_t grid_columns, int64_t count, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t row = a.begin + i / a.in, column = i % a.in;
  store(__fmul_rn(e4m3_to_float(a.codes[row * a.in + column]),
                  scale_of(a, grid_columns, row, column)),
        out[i]);
}

unsigned groups_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

}  // namespace

void dequantize_fp8(const Fp8DequantizeArguments& a, void* stream) {
  const int64_t count = (a.end - a.begin) * a.in;
  if (count == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  const bool whole = a.in % kPerThread == 0 &&
                     (a.block_columns % kPerThread == 0 || a.block_columns >= a.in) &&
                     aligned_to(a.codes, 8) && aligned_to(a.out, 16);
  with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    T* out = static_cast<T*>(a.out);
    if (whole)
      widen_eight<T><<<groups_for(count / kPerThread), kThreads, 0, s>>>(a, a.grid_columns(),
                                                                         count / kPerThread, out);
    else
      widen_one<T><<<groups_for(count), kThreads, 0, s>>>(a, a.grid_columns(), count, out);
  });
  check_launch("dequantize_fp8");
}

}  // namespace qlora::quant::cuda
