// Dynamic loss scaling for float16 (Micikevicius et al. 2018, section 3.2): the loss is multiplied
// by a power of two so that small gradients stay representable, and gradients are divided by it
// again before clipping. A step whose gradient overflows is left out and the scale halved; after
// 2,000 good steps in a row it doubles. torch.amp.GradScaler's defaults.
#pragma once

#include <cstdint>

namespace qlora::trainer {

constexpr double kFirstLossScale = 65536.0;
constexpr double kLeastLossScale = 1.0;
constexpr int64_t kStepsBetweenGrowth = 2000;

struct LossScale {
  double value = 1.0;  // 1: no scaling
  int64_t good_steps = 0;

  // After a step whose gradient was finite, or was not.
  void good() {
    if (++good_steps < kStepsBetweenGrowth) return;
    value *= 2;
    good_steps = 0;
  }
  // Whether there is a smaller scale to try.
  bool overflowed() {
    good_steps = 0;
    value /= 2;
    return value >= kLeastLossScale;
  }
};

}  // namespace qlora::trainer
