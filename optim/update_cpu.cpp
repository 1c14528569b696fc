#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "optim/update_kernels.h"
#include "quant/blockwise8/blockwise8_kernels.h"
#include "quant/blockwise8/dynamic_map.h"

namespace qlora::optim::cpu {
namespace {

// The scalars of one run, rounded to fp32 where bitsandbytes' tensor operations round them.
struct Coefficients {
  Coefficients(const UpdateStep& step, const UpdateRun& run) {
    const double lr = step.lr * run.lr_scale;
    const bool codes = run.absmax[0] != nullptr;
    const bool adam = step.rule == Rule::kAdam || step.rule == Rule::kLamb;
    gradient_scale = static_cast<float>(step.gradient_scale);
    beta1 = static_cast<float>(step.beta1);
    rest1 = static_cast<float>(1.0 - step.beta1);
    beta2 = static_cast<float>(step.beta2);
    rest2 = static_cast<float>(1.0 - step.beta2);
    beta3 = static_cast<float>(step.beta3);
    rest3 = static_cast<float>(1.0 - step.beta3);
    alpha = static_cast<float>(step.alpha);
    divisor1 = static_cast<float>(step.correction1);
    divisor2 = static_cast<float>(step.correction2);
    eps = static_cast<float>(adam && !codes ? step.eps * step.correction2 : step.eps);
    step_size = static_cast<float>(!adam   ? -lr
                                   : codes ? -lr / step.correction1
                                           : -lr * step.correction2 / step.correction1 *
                                                 (step.rule == Rule::kLamb ? run.update_scale : 1));
    weight_decay = static_cast<float>(run.weight_decay);
    decay = static_cast<float>(1.0 - lr * run.weight_decay);
  }
  float gradient_scale, beta1, rest1, beta2, rest2, beta3, rest3, alpha;
  float divisor1, divisor2, eps, step_size, weight_decay, decay;
};

// The state of one element: m (or v of the rules that keep only that), and what else there is.
struct State {
  float s0, s1, s2;
};

// Fused multiply-adds are named where torch's kernels fuse; the compiler contracts nothing by
// itself.
[[gnu::always_inline]] inline float mean(float beta, float rest, float state, float g) {
  return __builtin_fmaf(g, rest, state * beta);
}
[[gnu::always_inline]] inline float mean_square(float beta, float rest, float state, float g) {
  return __builtin_fmaf(rest * g, g, state * beta);
}
[[gnu::always_inline]] inline float sign(float x) {
  return static_cast<float>(x > 0.0f) - static_cast<float>(x < 0.0f);
}

// New state and value of one element.
template <Rule rule, bool codes>
[[gnu::always_inline]] inline float updated(const Coefficients& k, float p, float g, State& s) {
  if constexpr (couples_decay(rule)) g = __builtin_fmaf(p, k.weight_decay, g);
  if constexpr (rule == Rule::kAdam) {
    s.s0 = mean(k.beta1, k.rest1, s.s0, g);
    s.s1 = mean_square(k.beta2, k.rest2, s.s1, g);
    if constexpr (codes)
      return p * k.decay + (k.step_size * s.s0) / (__builtin_sqrtf(s.s1) / k.divisor2 + k.eps);
    return __builtin_fmaf(s.s0 / (__builtin_sqrtf(s.s1) + k.eps), k.step_size, p * k.decay);
  } else if constexpr (rule == Rule::kAdemamix) {
    s.s0 = mean(k.beta1, k.rest1, s.s0, g);
    s.s1 = mean(k.beta3, k.rest3, s.s1, g);
    s.s2 = mean_square(k.beta2, k.rest2, s.s2, g);
    const float mixed = s.s0 / k.divisor1 + k.alpha * s.s1;
    return __builtin_fmaf(mixed / (__builtin_sqrtf(s.s2) / k.divisor2 + k.eps), k.step_size,
                          p * k.decay);
  } else if constexpr (rule == Rule::kLion) {
    const float direction = codes ? s.s0 * k.beta1 + g * k.rest1 : mean(k.beta1, k.rest1, s.s0, g);
    s.s0 = mean(k.beta2, k.rest2, s.s0, g);
    return __builtin_fmaf(sign(direction), k.step_size, p * k.decay);
  } else if constexpr (rule == Rule::kMomentum) {
    s.s0 = s.s0 * k.beta1 + g;
    return __builtin_fmaf(s.s0, k.step_size, p);
  } else {
    s.s0 = rule == Rule::kRmsprop ? mean_square(k.beta1, k.rest1, s.s0, g)
                                  : __builtin_fmaf(g, g, s.s0);
    const float denominator = __builtin_sqrtf(s.s0) + k.eps;
    if constexpr (codes) return p + (k.step_size * g) / denominator;
    return __builtin_fmaf(g / denominator, k.step_size, p);
  }
}

// Elements of one run with their state in fp32.
struct Elements {
  int64_t count;
  const float* gradient;
  float* value;
  float* s0;
  float* s1;
  float* s2;
};

template <Rule rule, bool codes>
[[gnu::always_inline]] inline void update_elements(const Coefficients& k, const Elements& e) {
  constexpr int kStates = state_slots(rule).count;
  const Coefficients c = k;
  const int64_t count = e.count;
  const float* __restrict gradient = e.gradient;
  float* __restrict value = e.value;
  float* __restrict s0 = e.s0;
  float* __restrict s1 = e.s1;
  float* __restrict s2 = e.s2;
  for (int64_t i = 0; i < count; ++i) {
    const float old = value[i];
    State s{s0[i], kStates > 1 ? s1[i] : 0.0f, kStates > 2 ? s2[i] : 0.0f};
    float p = updated<rule, codes>(c, old, gradient[i] * c.gradient_scale, s);
    if constexpr (codes) {
      const bool finite = (std::fabs(s.s0) <= FLT_MAX) & (std::fabs(s.s1) <= FLT_MAX) &
                          (std::fabs(s.s2) <= FLT_MAX);
      s = {finite ? s.s0 : 0.0f, finite ? s.s1 : 0.0f, finite ? s.s2 : 0.0f};
      p = finite ? p : old;
    }
    s0[i] = s.s0;
    if constexpr (kStates > 1) s1[i] = s.s1;
    if constexpr (kStates > 2) s2[i] = s.s2;
    value[i] = p;
  }
}

using UpdateElements = void (*)(const Coefficients&, const Elements&);

// One function for each rule and kind of state, each compiled for several instruction sets.
#define QLORA_UPDATE(name, rule, codes)                                  \
  QLORA_VECTORIZED void name(const Coefficients& k, const Elements& e) { \
    update_elements<rule, codes>(k, e);                                  \
  }
QLORA_UPDATE(adam_32bit, Rule::kAdam, false)
QLORA_UPDATE(adam_8bit, Rule::kAdam, true)
QLORA_UPDATE(ademamix_32bit, Rule::kAdemamix, false)
QLORA_UPDATE(ademamix_8bit, Rule::kAdemamix, true)
QLORA_UPDATE(lion_32bit, Rule::kLion, false)
QLORA_UPDATE(lion_8bit, Rule::kLion, true)
QLORA_UPDATE(momentum_32bit, Rule::kMomentum, false)
QLORA_UPDATE(momentum_8bit, Rule::kMomentum, true)
QLORA_UPDATE(rmsprop_32bit, Rule::kRmsprop, false)
QLORA_UPDATE(rmsprop_8bit, Rule::kRmsprop, true)
QLORA_UPDATE(adagrad_32bit, Rule::kAdagrad, false)
QLORA_UPDATE(adagrad_8bit, Rule::kAdagrad, true)
#undef QLORA_UPDATE

UpdateElements update_of(Rule rule, bool codes) {
  switch (rule) {
    case Rule::kAdam:
      return codes ? adam_8bit : adam_32bit;
    case Rule::kAdemamix:
      return codes ? ademamix_8bit : ademamix_32bit;
    case Rule::kLion:
      return codes ? lion_8bit : lion_32bit;
    case Rule::kMomentum:
      return codes ? momentum_8bit : momentum_32bit;
    case Rule::kRmsprop:
      return codes ? rmsprop_8bit : rmsprop_32bit;
    case Rule::kAdagrad:
      return codes ? adagrad_8bit : adagrad_32bit;
    case Rule::kLamb:
      break;
  }
  return nullptr;
}

float lamb_direction(const Coefficients& k, float m, float v) { return m / (std::sqrt(v) + k.eps); }

// New state of lamb, and the sums of squares of one block.
void measure_lamb(const Coefficients& k, const Elements& e, double* squares) {
  squares[0] = squares[1] = 0;
  for (int64_t i = 0; i < e.count; ++i) {
    const float g = e.gradient[i] * k.gradient_scale;
    e.s0[i] = mean(k.beta1, k.rest1, e.s0[i], g);
    e.s1[i] = mean_square(k.beta2, k.rest2, e.s1[i], g);
    const double p = e.value[i], u = lamb_direction(k, e.s0[i], e.s1[i]);
    squares[0] += p * p;
    squares[1] += u * u;
  }
}

void apply_lamb(const Coefficients& k, const Elements& e) {
  for (int64_t i = 0; i < e.count; ++i)
    e.value[i] = std::fma(lamb_direction(k, e.s0[i], e.s1[i]), k.step_size, e.value[i] * k.decay);
}

Elements elements_of(const UpdateRun& run, int64_t begin, int64_t count) {
  const auto state = [&](int slot) {
    return run.state[slot] == nullptr ? nullptr : static_cast<float*>(run.state[slot]) + begin;
  };
  return {count, run.gradient + begin, run.value + begin, state(0), state(1), state(2)};
}

void update_lamb(const UpdateStep& step, const UpdateRun& run, int64_t first, int64_t last) {
  const Coefficients k(step, run);
  for (int64_t block = first; block < last; ++block) {
    const int64_t at = block * kStateBlock;
    const Elements e = elements_of(run, at, std::min(kStateBlock, run.count - at));
    if (step.phase == Phase::kMeasure) {
      measure_lamb(k, e, run.squares + 2 * block);
    } else {
      apply_lamb(k, e);
    }
  }
}

const quant::DynamicMap& map_of(const StateSlot& slot) {
  return slot.signed_map ? quant::signed_dynamic_map() : quant::unsigned_dynamic_map();
}
const quant::CodeLookup& lookup_of(const StateSlot& slot) {
  return slot.signed_map ? quant::CodeLookup::signed_map() : quant::CodeLookup::unsigned_map();
}

QLORA_VECTORIZED void decode(const float* __restrict map, const uint8_t* __restrict codes,
                             float absmax, int64_t count, float* __restrict values) {
  for (int64_t i = 0; i < count; ++i) values[i] = map[codes[i]];
  for (int64_t i = 0; i < count; ++i) values[i] *= absmax;
}

void update_8bit(const UpdateStep& step, const UpdateRun& run, int64_t first, int64_t last) {
  const Coefficients k(step, run);
  const UpdateElements update = update_of(step.rule, true);
  const StateSlots slots = state_slots(step.rule);
  alignas(64) float states[kMostStates][kStateBlock];
  for (int64_t block = first; block < last; ++block) {
    const int64_t at = block * kStateBlock, count = std::min(kStateBlock, run.count - at);
    for (int s = 0; s < slots.count; ++s)
      decode(map_of(slots.slots[s]).data(), static_cast<uint8_t*>(run.state[s]) + at,
             run.absmax[s][block], count, states[s]);
    update(k, {count, run.gradient + at, run.value + at, states[0], states[1], states[2]});
    for (int s = 0; s < slots.count; ++s)
      run.absmax[s][block] = quant::cpu::encode_block8(states[s], count, lookup_of(slots.slots[s]),
                                                       static_cast<uint8_t*>(run.state[s]) + at);
  }
}

void update_blocks(const UpdateStep& step, const UpdateRun& run, int64_t first, int64_t last) {
  if (step.rule == Rule::kLamb) {
    update_lamb(step, run, first, last);
  } else if (run.absmax[0] != nullptr) {
    update_8bit(step, run, first, last);
  } else {
    const int64_t begin = first * kStateBlock, end = std::min(run.count, last * kStateBlock);
    update_of(step.rule, false)(Coefficients(step, run), elements_of(run, begin, end - begin));
  }
}

}  // namespace

void update(const UpdateStep& step, const UpdateRun* runs, int64_t num_runs) {
  if (num_runs == 0) return;
  const UpdateRun& last_run = runs[num_runs - 1];
  const int64_t num_blocks = last_run.first_block + num_state_blocks(last_run.count);
  // Blocks are independent, so any split of them gives the same bits.
  parallel_for(num_blocks, 16, [&](int64_t begin, int64_t end) {
    const UpdateRun* run =
        std::upper_bound(runs, runs + num_runs, begin,
                         [](int64_t block, const UpdateRun& r) { return block < r.first_block; }) -
        1;
    for (; begin < end; ++run) {
      const int64_t last = std::min(end, run->first_block + num_state_blocks(run->count));
      update_blocks(step, *run, begin - run->first_block, last - run->first_block);
      begin = last;
    }
  });
}

}  // namespace qlora::optim::cpu
