// MXFP4 on CUDA: a thread decodes eight numbers of a block, a 4-byte load and one or two 16-byte
// stores; without the wide accesses where memory is not aligned to them. E2M1 numbers are fp16
// numbers of fewer bits, 2^14 times smaller, which the processor converts.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/with_device_type.cuh"
#include "quant/mxfp4/mxfp4_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;

__device__ float e2m1_to_float(uint32_t code) {
  __half_raw raw;
  raw.x = static_cast<unsigned short>(((code & 8u) << 12) | ((code & 7u) << 9));
  return __half2float(__half(raw)) * 16384.0f;
}

__device__ float e8m0_to_float(uint32_t code) {
  return __uint_as_float(code == 0 ? 0x00400000u : code << 23);
}

template <typename T>
__global__ void decode(const uint8_t* packed, const uint8_t* scales, int64_t pieces, bool aligned,
                       T* out) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const uint8_t* bytes = packed + piece * (kPerThread / 2);
  const uint32_t word =
      aligned ? *reinterpret_cast<const uint32_t*>(bytes)
              : bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<uint32_t>(bytes[3]) << 24;
  const float scale = e8m0_to_float(scales[piece * kPerThread / kMxfp4Block]);
  Vector<T, kPerThread> result;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    store(__fmul_rn(e2m1_to_float((word >> (4 * i)) & 15u), scale), result.element[i]);
  T* to = out + piece * kPerThread;
  if (aligned) {
    copy_vector<T, kPerThread>(&result, to);
  } else {
    for (int i = 0; i < kPerThread; ++i) to[i] = result.element[i];
  }
}

}  // namespace

void dequantize_mxfp4(const Mxfp4DequantizeArguments& a, void* stream) {
  const int64_t pieces = a.blocks * kMxfp4Block / kPerThread;
  if (pieces == 0) return;
  const auto groups = static_cast<unsigned>((pieces + kThreads - 1) / kThreads);
  const bool aligned = aligned_to(a.packed, 4) && aligned_to(a.out, 16);
  with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    decode<T><<<groups, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        a.packed, a.scales, pieces, aligned, static_cast<T*>(a.out));
  });
  check_launch("dequantize_mxfp4");
}

}  // namespace qlora::quant::cuda
