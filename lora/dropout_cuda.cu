#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "base/philox.h"
#include "lora/dropout_kernels.h"

namespace qlora::lora::cuda {
namespace {

__device__ float load(float value) { return value; }
__device__ float load(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ void store(float value, float& out) { out = value; }
__device__ float load(__half value) { return __half2float(value); }
__device__ void store(float value, __half& out) { out = __float2half_rn(value); }
__device__ void store(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }

template <typename T>
__global__ void dropout_kernel(const T* in, T* out, int64_t count, float probability, float scale,
                               uint64_t key) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (block * 4 >= count) return;
  const PhiloxWords words = philox_words(key, static_cast<uint64_t>(block));
  for (int i = 0; i < 4 && block * 4 + i < count; ++i) {
    const float draw = static_cast<float>(words.word[i] >> 8) * 5.9604644775390625e-8f;
    store(draw >= probability ? __fmul_rn(load(in[block * 4 + i]), scale) : 0.0f,
          out[block * 4 + i]);
  }
}

template <typename T>
void launch(const DropoutArguments& a, cudaStream_t stream) {
  const int threads = 256;
  const int64_t blocks = ((a.count + 3) / 4 + threads - 1) / threads;
  dropout_kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(
      static_cast<const T*>(a.input), static_cast<T*>(a.output), a.count, a.probability,
      1.0f / (1.0f - a.probability), a.key);
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
