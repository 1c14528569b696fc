#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "optim/adamw_kernels.h"
#include "quant/blockwise8_kernels.h"
#include "quant/dynamic_map.h"

namespace qlora::optim::cpu {
namespace {

// The scalars of one run, rounded to fp32 where bitsandbytes' tensor operations round them.
struct Coefficients {
  Coefficients(const AdamwStep& step, const AdamwRun& run) {
    const double lr = step.lr * run.lr_scale;
    const bool codes = run.absmax1 != nullptr;
    gradient_scale = static_cast<float>(step.gradient_scale);
    beta1 = static_cast<float>(step.beta1);
    rest1 = static_cast<float>(1.0 - step.beta1);
    beta2 = static_cast<float>(step.beta2);
    rest2 = static_cast<float>(1.0 - step.beta2);
    divisor = static_cast<float>(step.correction2);
    eps = static_cast<float>(codes ? step.eps : step.eps * step.correction2);
    step_size = static_cast<float>(codes ? -lr / step.correction1
                                         : -lr * step.correction2 / step.correction1);
    decay = static_cast<float>(1.0 - lr * run.weight_decay);
  }
  float gradient_scale, beta1, rest1, beta2, rest2, divisor, eps, step_size, decay;
};

// Fused multiply-adds are named where torch's kernels fuse; the compiler contracts nothing by
// itself.
[[gnu::always_inline]] inline float first_moment(const Coefficients& k, float m, float g) {
  return __builtin_fmaf(g, k.rest1, m * k.beta1);
}
[[gnu::always_inline]] inline float second_moment(const Coefficients& k, float v, float g) {
  return __builtin_fmaf(k.rest2 * g, g, v * k.beta2);
}

QLORA_VECTORIZED void update_32bit(const Coefficients& k, int64_t count,
                                   const float* __restrict gradient, float* __restrict value,
                                   float* __restrict state1, float* __restrict state2) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * k.gradient_scale;
    const float m = first_moment(k, state1[i], g);
    const float v = second_moment(k, state2[i], g);
    state1[i] = m;
    state2[i] = v;
    value[i] = __builtin_fmaf(m / (__builtin_sqrtf(v) + k.eps), k.step_size, value[i] * k.decay);
  }
}

// One block of 8-bit state with what it updates.
struct Block {
  int64_t count;
  const float* gradient;
  float* value;
  const uint8_t* codes1;
  const uint8_t* codes2;
  float absmax1, absmax2;
};

struct Moments {
  alignas(64) float m[kStateBlock], v[kStateBlock];
};

// In three passes, because table lookups and arithmetic do not vectorise together.
QLORA_VECTORIZED void update_8bit(const Coefficients& k, const Block& block,
                                  const float* __restrict map1, const float* __restrict map2,
                                  Moments& moments) {
  const int64_t count = block.count;
  const float* __restrict gradient = block.gradient;
  const uint8_t* __restrict codes1 = block.codes1;
  const uint8_t* __restrict codes2 = block.codes2;
  float* __restrict value = block.value;
  float* __restrict m = moments.m;
  float* __restrict v = moments.v;
  const float absmax1 = block.absmax1, absmax2 = block.absmax2;
  const Coefficients c = k;
  for (int64_t i = 0; i < count; ++i) m[i] = map1[codes1[i]];
  for (int64_t i = 0; i < count; ++i) v[i] = map2[codes2[i]];
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * c.gradient_scale;
    const float new_m = first_moment(c, m[i] * absmax1, g);
    const float new_v = second_moment(c, v[i] * absmax2, g);
    const bool finite = (std::fabs(new_m) <= FLT_MAX) & (new_v <= FLT_MAX);
    const float kept_m = finite ? new_m : 0.0f;
    const float kept_v = finite ? new_v : 0.0f;
    m[i] = kept_m;
    v[i] = kept_v;
    const float old = value[i];
    const float denominator = __builtin_sqrtf(kept_v) / c.divisor + c.eps;
    const float updated = old * c.decay + (c.step_size * kept_m) / denominator;
    value[i] = finite ? updated : old;
  }
}

void update_blocks(const Coefficients& k, const AdamwRun& run, int64_t first, int64_t last) {
  const int64_t begin = first * kStateBlock, end = std::min(run.count, last * kStateBlock);
  if (run.absmax1 == nullptr) {
    update_32bit(k, end - begin, run.gradient + begin, run.value + begin,
                 static_cast<float*>(run.state1) + begin, static_cast<float*>(run.state2) + begin);
    return;
  }
  const float* map1 = quant::signed_dynamic_map().data();
  const float* map2 = quant::unsigned_dynamic_map().data();
  const quant::CodeLookup& lookup1 = quant::CodeLookup::signed_map();
  const quant::CodeLookup& lookup2 = quant::CodeLookup::unsigned_map();
  Moments moments;
  for (int64_t block = first; block < last; ++block) {
    const int64_t at = block * kStateBlock, count = std::min(kStateBlock, run.count - at);
    uint8_t* codes1 = static_cast<uint8_t*>(run.state1) + at;
    uint8_t* codes2 = static_cast<uint8_t*>(run.state2) + at;
    update_8bit(k,
                {count, run.gradient + at, run.value + at, codes1, codes2, run.absmax1[block],
                 run.absmax2[block]},
                map1, map2, moments);
    run.absmax1[block] = quant::cpu::encode_block8(moments.m, count, lookup1, codes1);
    run.absmax2[block] = quant::cpu::encode_block8(moments.v, count, lookup2, codes2);
  }
}

}  // namespace

void adamw(const AdamwStep& step, const AdamwRun* runs, int64_t num_runs) {
  if (num_runs == 0) return;
  const AdamwRun& last_run = runs[num_runs - 1];
  const int64_t num_blocks = last_run.first_block + num_state_blocks(last_run.count);
  // Blocks are independent, so any split of them gives the same bits.
  parallel_for(num_blocks, 16, [&](int64_t begin, int64_t end) {
    const AdamwRun* run =
        std::upper_bound(runs, runs + num_runs, begin,
                         [](int64_t block, const AdamwRun& r) { return block < r.first_block; }) -
        1;
    for (; begin < end; ++run) {
      const int64_t last = std::min(end, run->first_block + num_state_blocks(run->count));
      update_blocks(Coefficients(step, *run), *run, begin - run->first_block,
                    last - run->first_block);
      begin = last;
    }
  });
}

}  // namespace qlora::optim::cpu
