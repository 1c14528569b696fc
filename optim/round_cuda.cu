#include <cuda_runtime.h>

#include "optim/round_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"

namespace qlora::optim::cuda {
namespace {

constexpr int kThreads = 256;

// One block of places a thread.
__global__ void round_kernel(RoundArguments a) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = block * kPlacesPerBlock;
  if (first >= a.count) return;
  PhiloxWords words = {};
  if (a.stochastic) words = philox_words(a.key, static_cast<uint64_t>(block));
  for (int i = 0; i < kPlacesPerBlock && first + i < a.count; ++i) {
    const uint32_t bits = __float_as_uint(a.values[first + i]);
    const uint32_t addend = a.stochastic ? random_addend(words, i) : nearest_addend(bits);
    a.values[first + i] = __uint_as_float(rounded_bits(bits, addend));
  }
}

}  // namespace

void round_to_bfloat16(const RoundArguments& arguments, void* stream) {
  if (arguments.count == 0) return;
  const int64_t places = static_cast<int64_t>(kThreads) * kPlacesPerBlock;
  round_kernel<<<static_cast<unsigned>((arguments.count + places - 1) / places), kThreads, 0,
                 static_cast<cudaStream_t>(stream)>>>(arguments);
  quant::cuda::check_launch("round_to_bfloat16");
}

}  // namespace qlora::optim::cuda
