#include <cuda_runtime.h>

#include <cfloat>

#include "optim/update_kernels.h"
#include "quant/blockwise8/nearest_code.cuh"
#include "quant/cuda/device_arithmetic.cuh"

namespace qlora::optim::cuda {
namespace {

static_assert(kStateBlock == 256, "one thread an element of a block");

// The scalars of one run.
struct Coefficients {
  float gradient_scale, beta1, beta2, beta3, alpha, divisor1, divisor2, eps, step_size, decay;
  float weight_decay;
};

__device__ Coefficients coefficients(const UpdateStep& step, const UpdateRun& run) {
  const double lr = step.lr * run.lr_scale;
  const bool adam = step.rule == Rule::kAdam || step.rule == Rule::kLamb;
  const double scale = step.rule == Rule::kLamb ? run.update_scale : 1.0;
  return {static_cast<float>(step.gradient_scale),
          static_cast<float>(step.beta1),
          static_cast<float>(step.beta2),
          static_cast<float>(step.beta3),
          static_cast<float>(step.alpha),
          static_cast<float>(step.correction1),
          static_cast<float>(step.correction2),
          static_cast<float>(adam ? step.eps * step.correction2 : step.eps),
          static_cast<float>(adam ? -lr * step.correction2 / step.correction1 * scale : -lr),
          static_cast<float>(1.0 - lr * run.weight_decay),
          static_cast<float>(run.weight_decay)};
}

// The last run that starts at or before the block.
__device__ const UpdateRun* find_run(const UpdateRun* runs, int64_t num_runs, int64_t block) {
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

__device__ float flushed_if(bool flush, float x) { return flush ? flushed(x) : x; }

__device__ float mean(float beta, float state, float g) { return state * beta + (1.0f - beta) * g; }

// New state (flushed: as bitsandbytes' 8-bit kernels have it) of one element; the value is left to
// new_value, which takes the state that is kept.
__device__ void new_state(Rule rule, const Coefficients& k, bool flush, float p, float g,
                          float (&s)[kMostStates]) {
  if (couples_decay(rule)) g += k.weight_decay * p;
  switch (rule) {
    case Rule::kAdam:
    case Rule::kLamb:
      s[0] = mean(k.beta1, s[0], g);
      s[1] = flush ? s[1] * k.beta2 + (1.0f - k.beta2) * g * g
                   : s[1] * k.beta2 + (1.0f - k.beta2) * (g * g);
      break;
    case Rule::kAdemamix:
      s[0] = mean(k.beta1, s[0], g);
      s[1] = mean(k.beta3, s[1], g);
      s[2] = s[2] * k.beta2 + (1.0f - k.beta2) * g * g;
      break;
    case Rule::kLion:
      s[0] = mean(k.beta2, s[0], g);
      break;
    case Rule::kMomentum:
      s[0] = s[0] * k.beta1 + g;
      break;
    case Rule::kRmsprop:
      s[0] = s[0] * k.beta1 + (1.0f - k.beta1) * (g * g);
      break;
    case Rule::kAdagrad:
      s[0] = s[0] + g * g;
      break;
  }
  for (float& x : s) x = flushed_if(flush, x);
}

__device__ float adam_direction(const Coefficients& k, const float (&s)[kMostStates]) {
  return s[0] / (sqrtf(s[1]) + k.eps);
}

// `old`: the state before this step.
__device__ float new_value(Rule rule, const Coefficients& k, float p, float g, float old,
                           const float (&s)[kMostStates]) {
  switch (rule) {
    case Rule::kAdam:
    case Rule::kLamb:
      return (p + k.step_size * adam_direction(k, s)) * k.decay;
    case Rule::kAdemamix:
      return (p + k.step_size *
                      ((s[0] / k.divisor1 + k.alpha * s[1]) / (sqrtf(s[2]) / k.divisor2 + k.eps))) *
             k.decay;
    case Rule::kLion: {
      const float direction = mean(k.beta1, old, g);
      return p * k.decay +
             k.step_size * static_cast<float>((direction > 0.0f) - (direction < 0.0f));
    }
    case Rule::kMomentum:
      return p + k.step_size * s[0];
    case Rule::kRmsprop:
    case Rule::kAdagrad:
      return p + k.step_size * ((g + k.weight_decay * p) / (sqrtf(s[0]) + k.eps));
  }
  return p;
}

__device__ void update_32bit(const UpdateStep& step, const UpdateRun& run, const Coefficients& k,
                             int64_t i) {
  if (i >= run.count) return;
  const int num_states = state_slots(step.rule).count;
  const float g = k.gradient_scale * run.gradient[i], p = run.value[i];
  float s[kMostStates] = {};
  for (int j = 0; j < num_states; ++j) s[j] = static_cast<float*>(run.state[j])[i];
  const float old = s[0];
  new_state(step.rule, k, false, p, g, s);
  for (int j = 0; j < num_states; ++j) static_cast<float*>(run.state[j])[i] = s[j];
  run.value[i] = new_value(step.rule, k, p, g, old, s);
}

__device__ void update_8bit(const UpdateStep& step, const UpdateRun& run, const Coefficients& k,
                            int64_t block, const float* map1, const float* map2, float* warps) {
  const int64_t i = block * kStateBlock + threadIdx.x;
  const bool inside = i < run.count;
  const StateSlots slots = state_slots(step.rule);
  float s[kMostStates] = {};
  if (inside) {
    const float g = run.gradient[i] * k.gradient_scale, p = run.value[i];
    for (int j = 0; j < slots.count; ++j)
      s[j] = (slots.slots[j].signed_map ? map1 : map2)[static_cast<uint8_t*>(run.state[j])[i]] *
             run.absmax[j][block];
    const float old = s[0];
    new_state(step.rule, k, true, p, g, s);
    if (fabsf(s[0]) <= FLT_MAX && fabsf(s[1]) <= FLT_MAX && fabsf(s[2]) <= FLT_MAX) {
      run.value[i] = new_value(step.rule, k, p, g, old, s);
    } else {
      s[0] = s[1] = s[2] = 0.0f;
    }
  }
  for (int j = 0; j < slots.count; ++j) {
    // The barriers inside also keep the old absmax in place until every thread has read it.
    const float absmax = block_maximum(fabsf(s[j]), warps);
    if (threadIdx.x == 0) run.absmax[j][block] = absmax;
    if (!inside) continue;
    const float* map = slots.slots[j].signed_map ? map1 : map2;
    // In an all-zero block 0 / 0 takes code 0, and the rule below makes it 255: its absmax of 0
    // decodes either to 0.
    int code = quant::cuda::nearest_code(map, approximate_quotient(s[j], absmax));
    // A moment too small for its code's sign would push the wrong way.
    if (slots.slots[j].signed_map && signbit(map[code]) != signbit(s[j]))
      code += s[j] > 0.0f ? 1 : -1;
    static_cast<uint8_t*>(run.state[j])[i] = static_cast<uint8_t>(code);
  }
}

// The sum over the 256 threads, for thread 0.
__device__ double block_sum(double value, double* warps) {
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < 8; ++i) sum += warps[i];
  return sum;
}

__device__ void update_lamb(const UpdateStep& step, const UpdateRun& run, const Coefficients& k,
                            int64_t block, double* warps) {
  const int64_t i = block * kStateBlock + threadIdx.x;
  const bool inside = i < run.count;
  float* m = static_cast<float*>(run.state[0]);
  float* v = static_cast<float*>(run.state[1]);
  float s[kMostStates] = {};
  if (inside) {
    s[0] = m[i];
    s[1] = v[i];
  }
  if (step.phase == Phase::kApply) {
    if (inside) run.value[i] = new_value(step.rule, k, run.value[i], 0.0f, 0.0f, s);
    return;
  }
  double p = 0, direction = 0;
  if (inside) {
    p = run.value[i];
    new_state(step.rule, k, false, run.value[i], k.gradient_scale * run.gradient[i], s);
    m[i] = s[0];
    v[i] = s[1];
    direction = adam_direction(k, s);
  }
  const double values = block_sum(p * p, warps),
               directions = block_sum(direction * direction, warps);
  if (threadIdx.x == 0) {
    run.squares[2 * block] = values;
    run.squares[2 * block + 1] = directions;
  }
}

__global__ void __launch_bounds__(256)
    update_kernel(UpdateStep step, const UpdateRun* runs, int64_t num_runs, const float* maps) {
  __shared__ float map1[256], map2[256], warps[8];
  __shared__ double sums[8];
  __shared__ UpdateRun run;
  __shared__ Coefficients k;
  map1[threadIdx.x] = maps[threadIdx.x];
  map2[threadIdx.x] = maps[256 + threadIdx.x];
  if (threadIdx.x == 0) {
    run = *find_run(runs, num_runs, blockIdx.x);
    k = coefficients(step, run);
  }
  __syncthreads();
  const int64_t block = static_cast<int64_t>(blockIdx.x) - run.first_block;
  if (step.rule == Rule::kLamb) {
    update_lamb(step, run, k, block, sums);
  } else if (run.absmax[0] == nullptr) {
    update_32bit(step, run, k, block * kStateBlock + threadIdx.x);
  } else {
    update_8bit(step, run, k, block, map1, map2, warps);
  }
}

}  // namespace

void update(const UpdateStep& step, const UpdateRun* runs, int64_t num_runs, int64_t num_blocks,
            const float* maps, void* stream) {
  if (num_blocks == 0) return;
  update_kernel<<<static_cast<unsigned>(num_blocks), 256, 0, static_cast<cudaStream_t>(stream)>>>(
      step, runs, num_runs, maps);
  quant::cuda::check_launch("optimizer update");
}

}  // namespace qlora::optim::cuda
