// A thread block for each row of logits, which is read three times and written once.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/device_sums.cuh"
#include "quant/cuda/with_device_type.cuh"
#include "trainer/loss_kernels.h"

namespace qlora::trainer::cuda {
namespace {

using quant::cuda::Greatest;
using quant::cuda::reduce_block;
using quant::cuda::store;
using quant::cuda::Sum;
using quant::cuda::to_float;

constexpr int kThreads = 512;

template <typename T>
__global__ void row_loss(SoftmaxCrossEntropy a) {
  __shared__ float shared[32];
  T* row = static_cast<T*>(a.logits) + static_cast<int64_t>(blockIdx.x) * a.vocab;
  const int64_t target = a.targets[blockIdx.x];
  const float at_target = to_float(row[target]);
  float top = Greatest::kNeutral, sum = 0.0f;
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) top = fmaxf(top, to_float(row[i]));
  top = reduce_block<Greatest>(top, shared);
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) sum += expf(to_float(row[i]) - top);
  sum = reduce_block<Sum>(sum, shared);
  if (threadIdx.x == 0) a.loss[blockIdx.x] = logf(sum) + top - at_target;
  if (!a.gradient) return;
  const float scale = a.scale[blockIdx.x];
  const float factor = scale / sum;
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads)
    store(expf(to_float(row[i]) - top) * factor - (i == target ? scale : 0.0f), row[i]);
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
