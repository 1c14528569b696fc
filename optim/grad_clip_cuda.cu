#include <cuda_runtime.h>

#include "optim/grad_clip_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"

namespace qlora::optim::cuda {
namespace {

constexpr int kThreads = 256;

// One thread block a norm block. Each thread sums its own stride; the tree below has a fixed shape,
// so the bits repeat.
__global__ void block_sums(const float* values, int64_t count, double* sums) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kNormBlock;
  const int64_t end = begin + kNormBlock < count ? begin + kNormBlock : count;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double x = values[i];
    sum += x * x;
  }
  __shared__ double partial[kThreads];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int width = kThreads / 2; width > 0; width /= 2) {
    if (threadIdx.x < width) partial[threadIdx.x] += partial[threadIdx.x + width];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

}  // namespace

void block_sums_of_squares(const float* values, int64_t count, double* sums, void* stream) {
  if (count == 0) return;
  block_sums<<<static_cast<unsigned>(num_norm_blocks(count)), kThreads, 0,
               static_cast<cudaStream_t>(stream)>>>(values, count, sums);
  quant::cuda::check_launch("block_sums_of_squares");
}

}  // namespace qlora::optim::cuda
