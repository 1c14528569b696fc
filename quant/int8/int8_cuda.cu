#include <cuda_runtime.h>

#include "quant/cuda/device_arithmetic.cuh"
#include "quant/int8/int8_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr float kOne127Squared = 6.200012e-05f;  // bitsandbytes' on CUDA; 1/16129 is 6.2000124e-05

template <typename T>
__device__ float as_half(T value, bool saturate) {
  float x = to_float(value);
  if (saturate) x = x > kLargestHalf ? kLargestHalf : x < -kLargestHalf ? -kLargestHalf : x;
  return __half2float(__float2half_rn(x));
}

// The largest of all threads' values, compared as integers: a NaN wins.
__device__ uint32_t block_maximum(uint32_t value) {
  __shared__ uint32_t warps[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2)
    value = max(value, __shfl_xor_sync(0xffffffffu, value, offset));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  uint32_t most = warps[0];
  for (int i = 1; i < kThreads / 32; ++i) most = max(most, warps[i]);
  return most;
}

// One block a row.
template <typename T>
__global__ void __launch_bounds__(kThreads) quantize_kernel(Int8QuantizeArguments a) {
  const T* x = static_cast<const T*>(a.x) + blockIdx.x * a.columns;
  int8_t* codes = a.codes + blockIdx.x * a.columns;
  uint32_t most = 0;
  for (int64_t i = threadIdx.x; i < a.columns; i += kThreads) {
    const float value = as_half(x[i], a.saturate);
    if (a.threshold > 0.0f && fabsf(value) >= a.threshold) {
      if (a.outliers) a.outliers[i] = 1;
    } else {
      most = max(most, __float_as_uint(value) & 0x7fffffffu);
    }
  }
  const float absmax = __uint_as_float(block_maximum(most));
  if (threadIdx.x == 0) a.absmax[blockIdx.x] = absmax;
  const float scale = __fdividef(127.0f, absmax);
  for (int64_t i = threadIdx.x; i < a.columns; i += kThreads) {
    const float value = as_half(x[i], a.saturate);
    const bool outlier = a.threshold > 0.0f && fabsf(value) >= a.threshold;
    const float scaled = outlier ? 0.0f : rintf(value * scale);
    codes[i] = static_cast<int8_t>(fabsf(scaled) <= 127.0f ? scaled : 0.0f);
  }
}

template <typename T>
__global__ void scale_kernel(Int8ScaleArguments a) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= a.rows * a.columns) return;
  const float scale = a.row_absmax[i / a.columns] * a.column_absmax[i % a.columns];
  store(__fmul_rn(__fmul_rn(static_cast<float>(a.products[i]), scale), kOne127Squared),
        static_cast<T*>(a.out)[i]);
}

template <typename T>
__global__ void dequantize_kernel(Int8DequantizeArguments a) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= a.rows * a.columns) return;
  store(__fmul_rn(__fmul_rn(static_cast<float>(a.codes[i]), a.absmax[i / a.columns]), kOne127th),
        static_cast<T*>(a.out)[i]);
}

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

// Calls body with a null pointer of the element type.
template <typename Body>
void for_type(ElementType type, const Body& body) {
  switch (type) {
    case ElementType::kFloat32:
      return body(static_cast<float*>(nullptr));
    case ElementType::kBFloat16:
      return body(static_cast<__nv_bfloat16*>(nullptr));
    case ElementType::kFloat16:
      return body(static_cast<__half*>(nullptr));
  }
}

}  // namespace

void quantize_int8(const Int8QuantizeArguments& a, void* stream) {
  if (a.rows == 0) return;
  for_type(a.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    quantize_kernel<T>
        <<<static_cast<unsigned>(a.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("quantize_int8");
}

void scale_int8_products(const Int8ScaleArguments& a, void* stream) {
  if (a.rows * a.columns == 0) return;
  for_type(a.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    scale_kernel<T>
        <<<blocks_for(a.rows * a.columns), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("scale_int8_products");
}

void dequantize_int8(const Int8DequantizeArguments& a, void* stream) {
  if (a.rows * a.columns == 0) return;
  for_type(a.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    dequantize_kernel<T>
        <<<blocks_for(a.rows * a.columns), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("dequantize_int8");
}

}  // namespace qlora::quant::cuda
