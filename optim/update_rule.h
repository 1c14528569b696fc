// The update rules, as bitsandbytes has them, and what state each keeps. With g the gradient, p the
// parameter, wd the weight decay, and c1 = 1 - b1^t, c2 = sqrt(1 - b2^t):
//
//   adam      m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr c2/c1 m / (sqrt v + eps c2)
//             (Kingma and Ba 2015; Loshchilov and Hutter 2019)
//   ademamix  m, v as adam;  n = b3 n + (1 - b3) g;  p -= lr (m/c1 + alpha n) / (sqrt v / c2 + eps)
//             (Pagliardini et al. 2024)
//   lion      p -= lr sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g   (Chen et al. 2023)
//   momentum  m = b1 m + g;  p -= lr m                                   (SGD with momentum)
//   rmsprop   v = b1 v + (1 - b1) g^2;  p -= lr g / (sqrt v + eps)
//   adagrad   v = v + g^2;  p -= lr g / (sqrt v + eps)
//   lamb      adam whose update is scaled down to the tensor's norm if its own is larger
//             (You et al. 2020)
//
// Decay multiplies p by 1 - lr wd in the first three and lamb, and is added to the gradient
// (g + wd p) in the others.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace qlora::optim {

enum class Rule { kAdam, kAdemamix, kLion, kMomentum, kRmsprop, kAdagrad, kLamb };

constexpr int kMostStates = 3;

// One number kept for each element: row `row` of the tensor state1 (tensor 0) or state2 (1).
struct StateSlot {
  int tensor, row;
  bool negative;  // whether it may be negative
  bool signed_map;
};
struct StateSlots {
  int count;
  StateSlot slots[kMostStates];
};

QLORA_HOST_DEVICE constexpr StateSlots state_slots(Rule rule) {
  switch (rule) {
    case Rule::kAdam:
    case Rule::kLamb:
      return {2, {{0, 0, true, true}, {1, 0, false, false}}};
    case Rule::kAdemamix:
      return {3, {{0, 0, true, true}, {0, 1, true, true}, {1, 0, false, false}}};
    case Rule::kLion:
    case Rule::kMomentum:
      return {1, {{0, 0, true, true}}};
    // A sum of squares in the signed map: half of its codes lie idle, as in bitsandbytes.
    case Rule::kRmsprop:
    case Rule::kAdagrad:
      return {1, {{0, 0, false, true}}};
  }
  return {0, {}};
}

// Whether weight decay is added to the gradient.
QLORA_HOST_DEVICE constexpr bool couples_decay(Rule rule) {
  return rule == Rule::kMomentum || rule == Rule::kRmsprop || rule == Rule::kAdagrad;
}

}  // namespace qlora::optim
