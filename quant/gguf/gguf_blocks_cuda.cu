// GGUF blocks on CUDA: a thread decodes eight elements (gguf_elements.h) and stores them in 16-byte
// pieces. Neighbouring threads share a block, whose bytes stay in the first-level cache: blocks
// have odd sizes, so that wider loads would not be aligned.
#include "io/dtype.h"
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/gguf/gguf_elements.h"
#include "quant/gguf/gguf_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;

template <typename Format, typename T>
__global__ void decode(const uint8_t* blocks, int64_t pieces, bool aligned, T* out) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  constexpr int kPieces = Format::kElements / kPerThread;
  const Format values(blocks + piece / kPieces * Format::kBytes,
                      static_cast<int>(piece % kPieces) * kPerThread);
  Vector<T, kPerThread> result;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) store(values(j), result.element[j]);
  T* to = out + piece * kPerThread;
  if (aligned) {
    copy_vector<T, kPerThread>(&result, to);
  } else {
    for (int j = 0; j < kPerThread; ++j) to[j] = result.element[j];
  }
}

template <typename Format, typename T>
void launch_as(const GgufDequantizeArguments& a, cudaStream_t stream) {
  const int64_t pieces = a.elements / kPerThread;
  if (pieces == 0) return;
  const auto groups = static_cast<unsigned>((pieces + kThreads - 1) / kThreads);
  decode<Format, T><<<groups, kThreads, 0, stream>>>(a.blocks, pieces, aligned_to(a.out, 16),
                                                     static_cast<T*>(a.out));
  check_launch("dequantize_gguf_blocks");
}

template <typename Format>
void launch(const GgufDequantizeArguments& a, cudaStream_t stream) {
  switch (a.type) {
    case ElementType::kFloat32:
      return launch_as<Format, float>(a, stream);
    case ElementType::kBFloat16:
      return launch_as<Format, __nv_bfloat16>(a, stream);
    case ElementType::kFloat16:
      return launch_as<Format, __half>(a, stream);
  }
}

}  // namespace

void dequantize_gguf_blocks(const GgufDequantizeArguments& a, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  switch (a.dtype) {
    case io::DType::kQ4_0:
      return launch<gguf::Q4_0>(a, s);
    case io::DType::kQ4_1:
      return launch<gguf::Q4_1>(a, s);
    case io::DType::kQ5_0:
      return launch<gguf::Q5_0>(a, s);
    case io::DType::kQ5_1:
      return launch<gguf::Q5_1>(a, s);
    case io::DType::kQ8_0:
      return launch<gguf::Q8_0>(a, s);
    case io::DType::kQ2_K:
      return launch<gguf::Q2_K>(a, s);
    case io::DType::kQ3_K:
      return launch<gguf::Q3_K>(a, s);
    case io::DType::kQ4_K:
      return launch<gguf::Q4_K>(a, s);
    case io::DType::kQ5_K:
      return launch<gguf::Q5_K>(a, s);
    case io::DType::kQ6_K:
      return launch<gguf::Q6_K>(a, s);
    case io::DType::kMXFP4:
      return launch<gguf::MXFP4>(a, s);
    default:
      fail<Error>("elements of this type are not stored in GGUF blocks");
  }
}

}  // namespace qlora::quant::cuda
