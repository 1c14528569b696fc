// 4-bit quantization on CUDA. A thread holds 8 neighbouring elements: one or two 16-byte loads, one
// 4-byte store. A team of block_size / 8 threads shares a block; teams up to a warp share a thread
// block of 256, larger ones have one each.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/nf4/nf4_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kPerThread = 8;

// By value, so that the tables of four_bit_tables.h reach the kernel through its constant bank.
struct Encoding {
  float bounds[kNumFourBitCodes - 1];
  uint32_t magnitudes;  // FP4: eight codes of 4 bits
};

Encoding encoding_of(FourBitCode code) {
  Encoding encoding = {};
  if (code == FourBitCode::kNf4) {
    for (int i = 0; i < kNumFourBitCodes - 1; ++i) encoding.bounds[i] = kNf4CudaBounds[i];
  } else {
    for (int i = 0; i < 7; ++i) encoding.bounds[i] = kFp4CudaBounds[i];
    for (int i = 0; i < 8; ++i)
      encoding.magnitudes |= static_cast<uint32_t>(kFp4CudaMagnitudes[i]) << (4 * i);
  }
  return encoding;
}

template <bool kIsNf4>
__device__ uint32_t code_of(float x, const Encoding& encoding) {
  constexpr int kBounds = kIsNf4 ? 15 : 7;
  const float value = kIsNf4 ? x : fabsf(x);
  uint32_t rank = 0;
#pragma unroll
  for (int i = 0; i < kBounds; ++i) rank += value > encoding.bounds[i] ? 1u : 0u;
  if (kIsNf4) return rank;
  return ((encoding.magnitudes >> (4 * rank)) & 7u) | (x < 0.0f ? 8u : 0u);
}

template <typename T, bool kIsNf4>
__global__ void quantize_kernel(const T* weight, uint8_t* packed, float* absmax, int64_t count,
                                int block_size, bool aligned, Encoding encoding) {
  __shared__ uint32_t shared[32];
  const int team = block_size / kPerThread;
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPerThread;
  const bool whole = begin + kPerThread <= count;

  Vector<T, kPerThread> loaded;
  if (whole && aligned) {
    copy_vector<T, kPerThread>(weight + begin, &loaded);
  } else {
    for (int i = 0; i < kPerThread; ++i)
      loaded.element[i] = begin + i < count ? weight[begin + i] : T(0.0f);
  }
  float values[kPerThread];
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    values[i] = to_float(loaded.element[i]);
    most = max(most, magnitude_bits(values[i]));
  }
  const float scale = __uint_as_float(greatest_of_team(most, team, shared));
  if (begin >= count) return;
  if (threadIdx.x % team == 0) absmax[begin / block_size] = scale;

  const float reciprocal = reciprocal_approximate(scale);
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const uint32_t code = code_of<kIsNf4>(multiply_flushed(values[i], reciprocal), encoding);
    word |= code << (8 * (i / 2) + (i % 2 == 0 ? 4 : 0));
  }
  if (whole) {
    *reinterpret_cast<uint32_t*>(packed + begin / 2) = word;
  } else {
    for (int64_t j = begin / 2; j < (count + 1) / 2; ++j, word >>= 8)
      packed[j] = static_cast<uint8_t>(word);
  }
}

template <typename T>
void launch(const FourBitQuantizeArguments& a, cudaStream_t stream) {
  const int team = static_cast<int>(a.block_size) / kPerThread;
  const int threads = team <= 32 ? 256 : team;
  const int64_t per_group = static_cast<int64_t>(threads) * kPerThread;
  const auto groups = static_cast<unsigned>((a.count + per_group - 1) / per_group);
  const auto kernel =
      a.code == FourBitCode::kNf4 ? quantize_kernel<T, true> : quantize_kernel<T, false>;
  kernel<<<groups, threads, 0, stream>>>(static_cast<const T*>(a.weight), a.packed, a.absmax,
                                         a.count, static_cast<int>(a.block_size),
                                         aligned_to(a.weight, 16), encoding_of(a.code));
  check_launch("quantize_four_bit");
}

}  // namespace

void quantize_four_bit(const FourBitQuantizeArguments& a, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  switch (a.type) {
    case ElementType::kFloat32:
      return launch<float>(a, s);
    case ElementType::kBFloat16:
      return launch<__nv_bfloat16>(a, s);
    case ElementType::kFloat16:
      return launch<__half>(a, s);
  }
}

}  // namespace qlora::quant::cuda
