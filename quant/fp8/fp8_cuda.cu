// FP8 on CUDA: a thread widens eight codes of one scale, an 8-byte load and one or two 16-byte
// stores, or a single code where rows, blocks or the output are not aligned to that. E4M3 numbers
// are fp16 numbers of half as many bits, 2^8 times smaller, which the processor converts.
#include <algorithm>

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

// Of numbers below 2^32, whose quotient is cheaper than one of 64 bits.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
}

__device__ float scale_of(const Fp8DequantizeArguments& a, int64_t grid_columns, int64_t row,
                          int64_t column) {
  return scale_at(a,
                  quotient(row, a.block_rows) * grid_columns + quotient(column, a.block_columns));
}

// Blocks [rows, pieces of a row].
template <typename T>
__global__ void widen_eight(Fp8DequantizeArguments a, int64_t grid_columns, T* out) {
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kPerThread;
  if (column >= a.in) return;
  const int64_t row = a.begin + blockIdx.x;
  const uint2 words = *reinterpret_cast<const uint2*>(a.codes + row * a.in + column);
  const float scale = scale_of(a, grid_columns, row, column);
  Vector<T, kPerThread> result;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const uint32_t code = ((i < 4 ? words.x : words.y) >> (8 * (i % 4))) & 0xffu;
    store(__fmul_rn(e4m3_to_float(code), scale), result.element[i]);
  }
  copy_vector<T, kPerThread>(&result, out + blockIdx.x * a.in + column);
}

template <typename T>
__global__ void widen_one(Fp8DequantizeArguments a, int64_t grid_columns, T* out) {
  const int64_t column = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= a.in) return;
  const int64_t row = a.begin + blockIdx.x;
  store(__fmul_rn(e4m3_to_float(a.codes[row * a.in + column]),
                  scale_of(a, grid_columns, row, column)),
        out[blockIdx.x * a.in + column]);
}

}  // namespace

void dequantize_fp8(const Fp8DequantizeArguments& arguments, void* stream) {
  Fp8DequantizeArguments a = arguments;
  const int64_t rows = a.end - a.begin, grid_columns = a.grid_columns();
  if (rows * a.in == 0) return;
  // A block may be larger than any matrix.
  a.block_rows = std::min(a.block_rows, a.end);
  a.block_columns = std::min(a.block_columns, a.in);
  const auto s = static_cast<cudaStream_t>(stream);
  const bool whole = a.in % kPerThread == 0 &&
                     (a.block_columns % kPerThread == 0 || a.block_columns == a.in) &&
                     aligned_to(a.codes, 8) && aligned_to(a.out, 16);
  const int64_t pieces = whole ? a.in / kPerThread : a.in;
  const int64_t threads = std::min<int64_t>((pieces + 31) / 32 * 32, kThreads);
  const dim3 blocks(static_cast<unsigned>(rows),
                    static_cast<unsigned>((pieces + threads - 1) / threads));
  with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    T* out = static_cast<T*>(a.out);
    if (whole)
      widen_eight<T><<<blocks, static_cast<unsigned>(threads), 0, s>>>(a, grid_columns, out);
    else
      widen_one<T><<<blocks, static_cast<unsigned>(threads), 0, s>>>(a, grid_columns, out);
  });
  check_launch("dequantize_fp8");
}

}  // namespace qlora::quant::cuda
