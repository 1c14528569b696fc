#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "base/philox.h"
#include "lora/dropout_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"

namespace qlora::lora::cuda {
namespace {

__device__ float load(float value) { return value; }
__device__ float load(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ void store(float value, float& out) { out = value; }
__device__ float load(__half value) { return __half2float(value); }
__device__ void store(float value, __half& out) { out = __float2half_rn(value); }
__device__ void store(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }

struct Drop {
  uint32_t below;
  float scale;
};

template <typename T>
__device__ void drop(const DroppedTensor& t, int64_t i, uint32_t bits, Drop d) {
  if (t.in == nullptr) return;
  T& out = static_cast<T*>(t.out)[i];
  const float kept =
      bits >= d.below ? __fmul_rn(load(static_cast<const T*>(t.in)[i]), d.scale) : 0.0f;
  store(t.accumulate ? __fadd_rn(load(out), kept) : kept, out);
}

// A thread for each Philox block, whose words lie 32 elements apart (dropout.h).
template <typename T>
__global__ void dropout_kernel(DropoutArguments a, Drop d) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t first = block / 16 * 128 + block % 16 * 2;
  if (first >= a.count) return;
  const PhiloxWords words = philox_words(a.key, static_cast<uint64_t>(block));
  for (int i = 0; i < 8; ++i) {
    const int64_t element = first + i / 2 * 32 + i % 2;
    if (element >= a.count) return;
    const uint32_t bits = words.word[i / 2] >> (16 * (i % 2)) & 0xffffu;
    drop<T>(a.first, element, bits, d);
    drop<T>(a.second, element, bits, d);
  }
}

template <typename T>
void launch(const DropoutArguments& a, cudaStream_t stream) {
  const int threads = 256;
  const int64_t groups = (a.count + 127) / 128, blocks = (groups * 16 + threads - 1) / threads;
  dropout_kernel<T><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(
      a, Drop{drop_below(a.probability), 1.0f / (1.0f - a.probability)});
  quant::cuda::check_launch("dropout");
}

}  // namespace

void dropout(const DropoutArguments& arguments, void* stream) {
  if (arguments.count == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  switch (arguments.type) {
    case quant::ElementType::kFloat32:
      return launch<float>(arguments, s);
    case quant::ElementType::kBFloat16:
      return launch<__nv_bfloat16>(arguments, s);
    case quant::ElementType::kFloat16:
      return launch<__half>(arguments, s);
  }
}

}  // namespace qlora::lora::cuda
