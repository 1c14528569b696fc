// Blockwise 8-bit quantization on CUDA. A thread holds 4 neighbouring elements, a team of
// block_size / 4 threads shares a block.
#include "quant/blockwise8/blockwise8_kernels.h"
#include "quant/blockwise8/nearest_code.cuh"
#include "quant/cuda/device_arithmetic.cuh"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;
constexpr int kMapSize = 256;

__device__ void load_map(const float* map, float* shared) {
  for (int i = threadIdx.x; i < kMapSize; i += blockDim.x) shared[i] = map[i];
  __syncthreads();
}

template <typename T>
__global__ void quantize_kernel(const T* input, const float* map, int64_t count, int block_size,
                                uint8_t* codes, float* absmax) {
  __shared__ float entries[kMapSize];
  __shared__ uint32_t shared[32];
  load_map(map, entries);
  const int team = block_size / kPerThread;
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPerThread;
  float values[kPerThread];
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    values[i] = begin + i < count ? to_float(input[begin + i]) : 0.0f;
    most = max(most, magnitude_bits(values[i]));
  }
  const float scale = __uint_as_float(greatest_of_team(most, team, shared));
  if (begin >= count) return;
  if (threadIdx.x % team == 0) absmax[begin / block_size] = scale;
  const float reciprocal = reciprocal_approximate(scale);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (begin + i < count)
      codes[begin + i] = nearest_code(entries, multiply_flushed(values[i], reciprocal));
}

template <typename T>
__global__ void dequantize_kernel(const uint8_t* codes, const float* map, const float* absmax,
                                  int64_t count, int block_shift, T* out) {
  __shared__ float entries[kMapSize];
  load_map(map, entries);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride)
    store(multiply_flushed(entries[codes[i]], __ldg(absmax + (i >> block_shift))), out[i]);
}

template <typename T>
void launch_quantize(const Blockwise8QuantizeArguments& a, cudaStream_t stream) {
  const int team = static_cast<int>(a.block_size) / kPerThread;
  const int threads = team <= 32 ? kThreads : team;
  const int64_t per_group = static_cast<int64_t>(threads) * kPerThread;
  quantize_kernel<<<static_cast<unsigned>((a.count + per_group - 1) / per_group), threads, 0,
                    stream>>>(static_cast<const T*>(a.input), a.map, a.count,
                              static_cast<int>(a.block_size), a.codes, a.absmax);
  check_launch("quantize_blockwise8");
}

template <typename T>
void launch_dequantize(const Blockwise8DequantizeArguments& a, cudaStream_t stream) {
  int block_shift = 0;
  while ((int64_t{1} << block_shift) < a.block_size) ++block_shift;
  constexpr int64_t kPerGroup = int64_t{kThreads} * 8;
  dequantize_kernel<<<static_cast<unsigned>((a.count + kPerGroup - 1) / kPerGroup), kThreads, 0,
                      stream>>>(a.codes, a.map, a.absmax, a.count, block_shift,
                                static_cast<T*>(a.out));
  check_launch("dequantize_blockwise8");
}

}  // namespace

void quantize_blockwise8(const Blockwise8QuantizeArguments& a, void* stream) {
  if (a.count == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  switch (a.type) {
    case ElementType::kFloat32:
      return launch_quantize<float>(a, s);
    case ElementType::kBFloat16:
      return launch_quantize<__nv_bfloat16>(a, s);
    case ElementType::kFloat16:
      return launch_quantize<__half>(a, s);
  }
}

void dequantize_blockwise8(const Blockwise8DequantizeArguments& a, void* stream) {
  if (a.count == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  switch (a.type) {
    case ElementType::kFloat32:
      return launch_dequantize<float>(a, s);
    case ElementType::kBFloat16:
      return launch_dequantize<__nv_bfloat16>(a, s);
    case ElementType::kFloat16:
      return launch_dequantize<__half>(a, s);
  }
}

}  // namespace qlora::quant::cuda
