#include <cuda_runtime.h>

#include <type_traits>

#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/device_vectors.cuh"
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

// What a thread takes at once of a row of codes, and of a row of products.
constexpr int kCodes = 8, kProducts = 4;

// Where the thread's `each` columns of row blockIdx.x begin.
__device__ inline int64_t first_column(int each) {
  return (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * each;
}

__device__ inline float scaled_product(int32_t product, float row_absmax, float column_absmax) {
  return __fmul_rn(__fmul_rn(static_cast<float>(product), row_absmax * column_absmax),
                   kOne127Squared);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) scale_kernel(Int8ScaleArguments a, bool aligned) {
  const int64_t column = first_column(kProducts);
  if (column >= a.columns) return;
  const float row_absmax = a.row_absmax[blockIdx.x];
  const float* column_absmax = a.column_absmax + column;
  const int32_t* products = a.products + blockIdx.x * a.columns + column;
  T* out = static_cast<T*>(a.out) + blockIdx.x * a.columns + column;
  if (!aligned) {
    for (int i = 0; i < kProducts && column + i < a.columns; ++i)
      store(scaled_product(products[i], row_absmax, column_absmax[i]), out[i]);
    return;
  }
  const auto from = *reinterpret_cast<const Neighbours<int32_t, kProducts>*>(products);
  float scales[kProducts], y[kProducts];
  load_neighbours(column_absmax, scales);
#pragma unroll
  for (int i = 0; i < kProducts; ++i) y[i] = scaled_product(from.element[i], row_absmax, scales[i]);
  store_neighbours(y, out);
}

__device__ inline float decoded(int8_t code, float absmax) {
  return __fmul_rn(__fmul_rn(static_cast<float>(code), absmax), kOne127th);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(Int8DequantizeArguments a, bool aligned) {
  const int64_t column = first_column(kCodes);
  if (column >= a.columns) return;
  const float absmax = a.absmax[blockIdx.x];
  const int8_t* codes = a.codes + blockIdx.x * a.columns + column;
  T* out = static_cast<T*>(a.out) + blockIdx.x * a.columns + column;
  if (!aligned) {
    for (int i = 0; i < kCodes && column + i < a.columns; ++i)
      store(decoded(codes[i], absmax), out[i]);
    return;
  }
  const auto from = *reinterpret_cast<const Neighbours<int8_t, kCodes>*>(codes);
  Vector<T, kCodes> result;
#pragma unroll
  for (int i = 0; i < kCodes; ++i) store(decoded(from.element[i], absmax), result.element[i]);
  copy_vector<T, kCodes>(&result, out);
}

// Thread blocks and their threads for rows in which a thread takes `each` columns.
struct Grid {
  dim3 blocks;
  unsigned threads;
};

Grid grid_for(int64_t rows, int64_t columns, int each) {
  const int64_t pieces = (columns + each - 1) / each;
  const int64_t threads = pieces < kThreads ? (pieces + 31) / 32 * 32 : kThreads;
  return {
      dim3(static_cast<unsigned>(rows), static_cast<unsigned>((pieces + threads - 1) / threads)),
      static_cast<unsigned>(threads)};
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
  const Grid grid = grid_for(a.rows, a.columns, kProducts);
  for_type(a.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool aligned = a.columns % kProducts == 0 && aligned_to(a.products, 16) &&
                         aligned_to(a.column_absmax, 16) &&
                         aligned_to(a.out, sizeof(T) * kProducts);
    scale_kernel<T>
        <<<grid.blocks, grid.threads, 0, static_cast<cudaStream_t>(stream)>>>(a, aligned);
  });
  check_launch("scale_int8_products");
}

void dequantize_int8(const Int8DequantizeArguments& a, void* stream) {
  if (a.rows * a.columns == 0) return;
  const Grid grid = grid_for(a.rows, a.columns, kCodes);
  const bool aligned =
      a.columns % kCodes == 0 && aligned_to(a.codes, kCodes) && aligned_to(a.out, 16);
  for_type(a.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    dequantize_kernel<T>
        <<<grid.blocks, grid.threads, 0, static_cast<cudaStream_t>(stream)>>>(a, aligned);
  });
  check_launch("dequantize_int8");
}

}  // namespace qlora::quant::cuda
