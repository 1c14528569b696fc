// A thread for each Philox block, which has the bits of four pairs of neighbours.
#include <cuda_runtime.h>

#include "base/philox.h"
#include "lora/dropout_kernels.h"
#include "quant/cuda/device_vectors.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::lora::cuda {
namespace {

using quant::cuda::load_neighbours;
using quant::cuda::store_neighbours;

struct Drop {
  uint32_t below;
  float scale;
};

__device__ inline float dropped(float x, uint32_t bits, Drop d) {
  return bits >= d.below ? __fmul_rn(x, d.scale) : 0.0f;
}

// Elements i and on, as many as there are bits.
template <typename T, int kCount>
__device__ void drop(const DroppedTensor& t, int64_t i, const uint32_t* bits, Drop d) {
  if (t.in == nullptr) return;
  T* out = static_cast<T*>(t.out) + i;
  float x[kCount], before[kCount];
  load_neighbours(static_cast<const T*>(t.in) + i, x);
  if (t.accumulate) load_neighbours(out, before);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    x[j] = dropped(x[j], bits[j], d);
    if (t.accumulate) x[j] = __fadd_rn(before[j], x[j]);
  }
  store_neighbours(x, out);
}

// The words of a block lie 32 elements apart (dropout.h). `by_two`: pairs can be moved at once.
template <typename T>
__global__ void dropout_kernel(DropoutArguments a, Drop d, bool by_two) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t first = block / 16 * 128 + block % 16 * 2;
  if (first >= a.count) return;
  const PhiloxWords words = philox_words(a.key, static_cast<uint64_t>(block));
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t element = first + 32 * k;
    if (element >= a.count) return;
    const uint32_t bits[] = {words.word[k] & 0xffffu, words.word[k] >> 16};
    if (by_two && element + 1 < a.count) {
      drop<T, 2>(a.first, element, bits, d);
      drop<T, 2>(a.second, element, bits, d);
      continue;
    }
    for (int j = 0; j < 2 && element + j < a.count; ++j) {
      drop<T, 1>(a.first, element + j, bits + j, d);
      drop<T, 1>(a.second, element + j, bits + j, d);
    }
  }
}

template <typename T>
bool by_two(const DroppedTensor& t) {
  return quant::cuda::aligned_to(t.in, 2 * sizeof(T)) &&
         quant::cuda::aligned_to(t.out, 2 * sizeof(T));
}

}  // namespace

void dropout(const DropoutArguments& a, void* stream) {
  if (a.count == 0) return;
  const int threads = 256;
  const int64_t groups = (a.count + 127) / 128, blocks = (groups * 16 + threads - 1) / threads;
  const Drop d{drop_below(a.probability), 1.0f / (1.0f - a.probability)};
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    dropout_kernel<T>
        <<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream)>>>(
            a, d, by_two<T>(a.first) && by_two<T>(a.second));
  });
  quant::cuda::check_launch("dropout");
}

}  // namespace qlora::lora::cuda
