// A thread block for each row of logits, which is read twice and written once, 16 bytes at a time.
#include <cmath>
#include <cstdint>

#include "quant/cuda/device_sums.cuh"
#include "quant/cuda/device_vectors.cuh"
#include "quant/cuda/with_device_type.cuh"
#include "trainer/loss_kernels.h"

namespace qlora::trainer::cuda {
namespace {

using quant::cuda::Greatest;
using quant::cuda::kPerPiece;
using quant::cuda::load_floats;
using quant::cuda::reduce_block;
using quant::cuda::Share;
using quant::cuda::store_floats;
using quant::cuda::Sum;
using quant::cuda::to_float;

constexpr int kThreads = 512;

// Calls body(place, share) for each of the thread's pieces of a row, which begins anywhere.
template <typename T, typename Body>
__device__ void for_each_piece(const T* row, int64_t vocab, const Body& body) {
  constexpr int kEach = kPerPiece<T>;
  const auto before = static_cast<int>(reinterpret_cast<uintptr_t>(row) / sizeof(T) % kEach);
  for (int64_t at = static_cast<int64_t>(threadIdx.x) * kEach - before; at < vocab;
       at += int64_t{kThreads} * kEach)
    body(at, quant::cuda::share_of<T>(at, vocab, true));
}

// The sum of exp(z - top) over the elements seen so far, `top` being the greatest of them (Milakov
// and Gimelshein 2018).
struct RunningSum {
  float top = Greatest::kNeutral, sum = 0.0f;

  template <int kCount>
  __device__ void add(const float (&z)[kCount]) {
    float new_top = top;
#pragma unroll
    for (int i = 0; i < kCount; ++i) new_top = fmaxf(new_top, z[i]);
    sum *= expf(top - new_top);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += expf(z[i] - new_top);
    top = new_top;
  }
};

template <typename T>
__global__ void row_loss(SoftmaxCrossEntropy a) {
  constexpr int kEach = kPerPiece<T>;
  __shared__ float shared[32];
  T* row = static_cast<T*>(a.logits) + static_cast<int64_t>(blockIdx.x) * a.vocab;
  const int64_t target = a.targets[blockIdx.x];
  const float at_target = to_float(row[target]);
  RunningSum own;
  for_each_piece(row, a.vocab, [&](int64_t at, Share share) {
    float z[kEach];
    load_floats(row + at, share, z, -INFINITY);
    own.add(z);
  });
  const float top = reduce_block<Greatest>(own.top, shared);
  const float sum = reduce_block<Sum>(own.sum * expf(own.top - top), shared);
  if (threadIdx.x == 0) a.loss[blockIdx.x] = logf(sum) + top - at_target;
  if (!a.gradient) return;
  const float scale = a.scale[blockIdx.x];
  const float factor = scale / sum;
  for_each_piece(row, a.vocab, [&](int64_t at, Share share) {
    float z[kEach];
    load_floats(row + at, share, z);
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      z[i] = expf(z[i] - top) * factor - (at + i == target ? scale : 0.0f);
    store_floats(z, share, row + at);
  });
}

}  // namespace

void softmax_cross_entropy(const SoftmaxCrossEntropy& a, void* stream) {
  if (a.rows == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    row_loss<typename decltype(tag)::Type>
        <<<static_cast<unsigned>(a.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  quant::cuda::check_launch("softmax_cross_entropy");
}

}  // namespace qlora::trainer::cuda
