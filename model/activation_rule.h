// The activations of MLPs, as data.
#pragma once

namespace qlora::model {

// kSilu is x / (1 + e^-x); kGelu is x Φ(x) with the normal distribution's Φ (Hendrycks & Gimpel
// 2016), kGeluTanh its approximation x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2; kRelu2 is
// max(x, 0)². kClampedSilu, gated only, is gpt-oss's: g / (1 + e^-(alpha g)) · (u + 1), where g is
// the gate, at most `limit`, and u is up, within -limit and limit.
enum class Activation { kSilu, kGelu, kGeluTanh, kRelu, kRelu2, kClampedSilu };

struct ActivationRule {
  Activation kind = Activation::kSilu;
  double limit = 7.0, alpha = 1.702;  // of kClampedSilu
};

}  // namespace qlora::model
