// One update of many tensors on raw pointers. The rules are in update_rule.h; the arithmetic is
// bitsandbytes' on the same device, which differs:
//
//   CPU   p *= 1 - lr wd first. adam with 8-bit state: p -= lr/c1 m / (sqrt v / c2 + eps)
//   CUDA  p *= 1 - lr wd after the update of adam, ademamix and lamb
//
// 8-bit state, per block of 256: decode the state, update, take the new absmax of each, update p
// from the exact new state, encode. CUDA then moves the code of a signed state one step where its
// sign is not the state's. On both devices an element whose new state is not finite keeps its p and
// gets state 0: its absmax would spoil the other 255. With fp32 state a NaN goes where arithmetic
// takes it.
//
// lamb takes two calls: the first updates the state and measures, the second updates p.
#pragma once

#include <cstdint>

#include "optim/update_rule.h"

namespace qlora::optim {

constexpr int64_t kStateBlock = 256;
constexpr int64_t num_state_blocks(int64_t count) {
  return (count + kStateBlock - 1) / kStateBlock;
}

// A run of elements of one parameter, starting at a multiple of 256, with its state.
struct UpdateRun {
  float* value;
  const float* gradient;
  int64_t count;
  void* state[kMostStates];    // [count] float, or uint8_t codes
  float* absmax[kMostStates];  // [num_state_blocks(count)]; null: fp32 state
  double lr_scale, weight_decay;
  double* squares;  // lamb: [num_state_blocks(count)][2], sums of p^2 and of the update's squares
  double update_scale;  // lamb
  int64_t first_block;  // how many blocks the runs before it in the same call hold
};

enum class Phase { kWhole, kMeasure, kApply };

struct UpdateStep {
  Rule rule;
  Phase phase;  // kMeasure and kApply: lamb
  double lr, gradient_scale;
  double beta1, beta2, beta3, alpha, eps;
  double correction1;  // 1 - beta1^t
  double correction2;  // sqrt(1 - beta2^t)
};

namespace cpu {
void update(const UpdateStep& step, const UpdateRun* runs, int64_t num_runs);
}

namespace cuda {
// One launch. `runs` and `maps` (signed, then unsigned, 256 floats each) lie on the device;
// num_blocks: of all runs together.
void update(const UpdateStep& step, const UpdateRun* runs, int64_t num_runs, int64_t num_blocks,
            const float* maps, void* stream);
}  // namespace cuda

}  // namespace qlora::optim
