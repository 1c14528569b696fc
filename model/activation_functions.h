// The activations at one number, for loops that the compiler vectorises: branch-free fp32. Each
// type has
//   value(x)            act(x)
// and, made of x, the two terms of the gradient, in an order of products of their own:
//   times_value(d)      d · act(x)
//   times_slope(d)      d · act'(x)
#pragma once

#include <cmath>

#include "base/vectorize.h"

namespace qlora::model::cpu {

struct Silu {
  float x, s;
  [[gnu::always_inline]] explicit Silu(float at) : x(at), s(1.0f / (1.0f + vector_exp(-at))) {}
  [[gnu::always_inline]] static float value(float x) { return x / (1.0f + vector_exp(-x)); }
  [[gnu::always_inline]] float times_value(float d) const { return d * x * s; }
  [[gnu::always_inline]] float times_slope(float d) const {
    return d * s * (1.0f + x * (1.0f - s));
  }
};

// erf within 2 ulp: two polynomials, one of the logarithm of what lacks to 1.
[[gnu::always_inline]] inline float vector_erf(float x) {
  const float size = std::fabs(x), t = size > 4.0f ? 4.0f : size, s = x * x, u = t * t;
  float far = (-1.72853470e-5f * t + 3.83197126e-4f) * u + (-3.88396438e-3f * t + 2.42546219e-2f);
  far = far * t - 1.06777877e-1f;
  far = far * t - 6.34846687e-1f;
  far = far * t - 1.28717512e-1f;
  far = std::copysign(1.0f - vector_exp(far * t - t), x);
  float near = -5.96761703e-4f;
  near = near * s + 4.99119423e-3f;
  near = near * s - 2.67681349e-2f;
  near = near * s + 1.12819925e-1f;
  near = near * s - 3.76125336e-1f;
  near = near * s + 1.28379166e-1f;
  near = near * x + x;
  return size > 0.927734375f ? far : near;
}

struct Gelu {
  float x, phi;  // the normal distribution up to x
  [[gnu::always_inline]] explicit Gelu(float at) : x(at), phi(below(at)) {}
  [[gnu::always_inline]] static float below(float x) {
    return 0.5f * (1.0f + vector_erf(x * 0.70710678118654752f));
  }
  [[gnu::always_inline]] static float value(float x) { return x * below(x); }
  [[gnu::always_inline]] float times_value(float d) const { return d * x * phi; }
  [[gnu::always_inline]] float times_slope(float d) const {
    return d * (phi + x * (0.3989422804014327f * vector_exp(-0.5f * x * x)));
  }
};

// (1 + tanh(u)) / 2 = 1 / (1 + e^-2u).
struct GeluTanh {
  static constexpr float kScale = 1.5957691216057308f, kCube = 0.044715f;  // 2 √(2/π)
  float x, near, s;
  [[gnu::always_inline]] explicit GeluTanh(float at) : x(at), near(clamped(at)), s(share(near)) {}
  // Beyond, the share is 0 or 1 and powers of x are not wanted.
  [[gnu::always_inline]] static float clamped(float x) {
    return x > 30.0f ? 30.0f : x < -30.0f ? -30.0f : x;
  }
  [[gnu::always_inline]] static float share(float x) {
    return 1.0f / (1.0f + vector_exp(-kScale * (x + kCube * x * x * x)));
  }
  [[gnu::always_inline]] static float value(float x) { return x * share(clamped(x)); }
  [[gnu::always_inline]] float times_value(float d) const { return d * x * s; }
  [[gnu::always_inline]] float times_slope(float d) const {
    return d * (s + near * s * (1.0f - s) * kScale * (1.0f + 3.0f * kCube * near * near));
  }
};

struct Relu {
  float x;
  [[gnu::always_inline]] explicit Relu(float at) : x(at) {}
  [[gnu::always_inline]] static float value(float x) { return x < 0.0f ? 0.0f : x; }
  [[gnu::always_inline]] float times_value(float d) const { return d * value(x); }
  [[gnu::always_inline]] float times_slope(float d) const { return x > 0.0f ? d : 0.0f; }
};

struct Relu2 {
  float x;
  [[gnu::always_inline]] explicit Relu2(float at) : x(at) {}
  [[gnu::always_inline]] static float value(float x) { return Relu::value(x) * Relu::value(x); }
  [[gnu::always_inline]] float times_value(float d) const { return d * value(x); }
  [[gnu::always_inline]] float times_slope(float d) const { return d * 2.0f * Relu::value(x); }
};

}  // namespace qlora::model::cpu
