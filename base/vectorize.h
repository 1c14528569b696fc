// QLORA_VECTORIZED before a plain-loop kernel: the compiler builds it for AVX-512, AVX2 and the
// baseline and the loader picks at start-up. Contraction is off, so all three give the same bits as
// long as a reduction keeps its lanes apart: sum into `float lanes[kLanes]` and fold with
// sum_lanes.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define QLORA_VECTORIZED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define QLORA_VECTORIZED
#endif

namespace qlora {

constexpr int kLanes = 16;

[[gnu::always_inline]] inline float sum_lanes(const float* lanes) {
  float sum[kLanes];
  for (int i = 0; i < kLanes; ++i) sum[i] = lanes[i];
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
  return sum[0];
}

// e^x with a relative error below 2 ulp (degree-6 polynomial after Cody-Waite reduction); 0 below
// -87.3, capped at e^88. Branch-free, so that loops around it vectorise; std::exp would not.
[[gnu::always_inline]] inline float vector_exp(float x) {
  const float clamped = x > 88.0f ? 88.0f : x;
  const float n = __builtin_rintf(clamped * 1.44269504088896341f);
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float scaled =
      p * std::bit_cast<float>((static_cast<int32_t>(n < -126.0f ? -126.0f : n) + 127) << 23);
  return x < -87.3f ? 0.0f : scaled;
}

}  // namespace qlora
