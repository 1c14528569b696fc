#include <cuda_runtime.h>

#include <cfloat>

#include "optim/adamw_kernels.h"
#include "quant/device_arithmetic.cuh"
#include "quant/nearest_code.cuh"

namespace qlora::optim::cuda {
namespace {

static_assert(kStateBlock == 256, "one thread an element of a block");

struct Coefficients {
  float step_size, eps, decay;
};

__device__ Coefficients coefficients(const AdamwStep& step, const AdamwRun& run) {
  const double lr = step.lr * run.lr_scale;
  return {static_cast<float>(-lr * step.correction2 / step.correction1),
          static_cast<float>(step.eps * step.correction2),
          static_cast<float>(1.0 - lr * run.weight_decay)};
}

// The last run that starts at or before the block.
__device__ const AdamwRun* find_run(const AdamwRun* runs, int64_t num_runs, int64_t block) {
  int64_t low = 0, high = num_runs;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (runs[middle].first_block <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return runs + low;
}

// bitsandbytes builds its kernels with fast-math: subnormals are flushed and a quotient is
// approximate. Moments and what is encoded shall be its, so both are said here. The parameter is
// updated with exact quotients and roots.
__device__ float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x; }

__device__ float approximate_quotient(float a, float b) {
  float quotient;
  asm("div.approx.ftz.f32 %0, %1, %2;" : "=f"(quotient) : "f"(a), "f"(b));
  return quotient;
}

// The largest of the 256 values, for every thread.
__device__ float block_maximum(float value, float* warps) {
  for (int offset = 16; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  float maximum = warps[0];
  for (int i = 1; i < 8; ++i) maximum = fmaxf(maximum, warps[i]);
  return maximum;
}

__device__ void update_32bit(const AdamwStep& step, const AdamwRun& run, const Coefficients& k,
                             int64_t i) {
  if (i >= run.count) return;
  const float beta1 = static_cast<float>(step.beta1), beta2 = static_cast<float>(step.beta2);
  const float g = static_cast<float>(step.gradient_scale) * run.gradient[i];
  float* state1 = static_cast<float*>(run.state1);
  float* state2 = static_cast<float*>(run.state2);
  const float m = state1[i] * beta1 + (1.0f - beta1) * g;
  const float v = state2[i] * beta2 + (1.0f - beta2) * (g * g);
  state1[i] = m;
  state2[i] = v;
  run.value[i] = (run.value[i] + k.step_size * (m / (sqrtf(v) + k.eps))) * k.decay;
}

__device__ void update_8bit(const AdamwStep& step, const AdamwRun& run, const Coefficients& k,
                            int64_t block, const float* map1, const float* map2, float* warps) {
  const int64_t i = block * kStateBlock + threadIdx.x;
  const bool inside = i < run.count;
  const float beta1 = static_cast<float>(step.beta1), beta2 = static_cast<float>(step.beta2);
  uint8_t* codes1 = static_cast<uint8_t*>(run.state1);
  uint8_t* codes2 = static_cast<uint8_t*>(run.state2);
  float m = 0.0f, v = 0.0f;
  if (inside) {
    const float g = run.gradient[i] * static_cast<float>(step.gradient_scale);
    m = flushed(map1[codes1[i]] * run.absmax1[block] * beta1 + (1.0f - beta1) * g);
    v = flushed(map2[codes2[i]] * run.absmax2[block] * beta2 + (1.0f - beta2) * g * g);
    if (fabsf(m) <= FLT_MAX && v <= FLT_MAX) {
      run.value[i] = (run.value[i] + k.step_size * (m / (sqrtf(v) + k.eps))) * k.decay;
    } else {
      m = v = 0.0f;
    }
  }
  // The barriers inside also keep the old absmax in place until every thread has read it.
  const float absmax1 = block_maximum(fabsf(m), warps);
  const float absmax2 = block_maximum(v, warps);
  if (threadIdx.x == 0) {
    run.absmax1[block] = absmax1;
    run.absmax2[block] = absmax2;
  }
  if (!inside) return;
  // In an all-zero block 0 / 0 takes code 0, and the rule below makes it 255: its absmax of 0
  // decodes either to 0.
  int code1 = quant::cuda::nearest_code(map1, approximate_quotient(m, absmax1));
  // A moment too small for its code's sign would push the wrong way.
  if (signbit(map1[code1]) != signbit(m)) code1 += m > 0.0f ? 1 : -1;
  codes1[i] = static_cast<uint8_t>(code1);
  codes2[i] = quant::cuda::nearest_code(map2, approximate_quotient(v, absmax2));
}

__global__ void __launch_bounds__(256)
    adamw_kernel(AdamwStep step, const AdamwRun* runs, int64_t num_runs, const float* maps) {
  __shared__ float map1[256], map2[256], warps[8];
  __shared__ AdamwRun run;
  __shared__ Coefficients k;
  map1[threadIdx.x] = maps[threadIdx.x];
  map2[threadIdx.x] = maps[256 + threadIdx.x];
  if (threadIdx.x == 0) {
    run = *find_run(runs, num_runs, blockIdx.x);
    k = coefficients(step, run);
  }
  __syncthreads();
  const int64_t block = static_cast<int64_t>(blockIdx.x) - run.first_block;
  if (run.absmax1 == nullptr) {
    update_32bit(step, run, k, block * kStateBlock + threadIdx.x);
  } else {
    update_8bit(step, run, k, block, map1, map2, warps);
  }
}

}  // namespace

void adamw(const AdamwStep& step, const AdamwRun* runs, int64_t num_runs, int64_t num_blocks,
           const float* maps, void* stream) {
  if (num_blocks == 0) return;
  adamw_kernel<<<static_cast<unsigned>(num_blocks), 256, 0, static_cast<cudaStream_t>(stream)>>>(
      step, runs, num_runs, maps);
  quant::cuda::check_launch("adamw");
}

}  // namespace qlora::optim::cuda
