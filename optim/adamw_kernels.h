// One AdamW update of many tensors on raw pointers. The arithmetic is bitsandbytes' on the same
// device, which differs:
//
//   CPU   p *= 1 - lr wd first; 32-bit: p -= lr c2/c1 m / (sqrt v + eps c2); 8-bit: p -= lr/c1 m /
//   (sqrt v / c2 + eps) CUDA  p -= lr c2/c1 m / (sqrt v + eps c2) for both, and then p *= 1 - lr wd
//
// with m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  c1 = 1 - b1^t,  c2 = sqrt(1 - b2^t).
//
// 8-bit state, per block of 256: decode m and v, update, take the new absmax of each, update p from
// the exact m and v, encode (signed map for m, unsigned for v). CUDA then moves the code of m one
// step where its sign is not m's. On both devices an element whose new m or v is not finite keeps
// its p and gets m = v = 0: its absmax would spoil the other 255. With fp32 state a NaN goes where
// arithmetic takes it.
#pragma once

#include <cstdint>

namespace qlora::optim {

constexpr int64_t kStateBlock = 256;
constexpr int64_t num_state_blocks(int64_t count) {
  return (count + kStateBlock - 1) / kStateBlock;
}

// A run of elements of one parameter, starting at a multiple of 256, with its state.
struct AdamwRun {
  float* value;
  const float* gradient;
  int64_t count;
  void* state1;    // [count] float m, or uint8_t codes
  void* state2;    // [count] float v, or uint8_t codes
  float* absmax1;  // [num_state_blocks(count)]; null: fp32 state
  float* absmax2;
  double lr_scale, weight_decay;
  int64_t first_block;  // how many blocks the runs before it in the same call hold
};

struct AdamwStep {
  double lr, gradient_scale;
  double beta1, beta2, eps;
  double correction1;  // 1 - beta1^t
  double correction2;  // sqrt(1 - beta2^t)
};

namespace cpu {
void adamw(const AdamwStep& step, const AdamwRun* runs, int64_t num_runs);
}

namespace cuda {
// One launch. `runs` and `maps` (signed, then unsigned, 256 floats each) lie on the device;
// num_blocks: of all runs together.
void adamw(const AdamwStep& step, const AdamwRun* runs, int64_t num_runs, int64_t num_blocks,
           const float* maps, void* stream);
}  // namespace cuda

}  // namespace qlora::optim
