// Elements of any floating type as fp32 and back, for CPU kernels. Inlined into loops that the
// compiler vectorises.
#pragma once

#include <bit>
#include <cstdint>

#include "base/bfloat16.h"
#include "base/float16.h"

namespace qlora::quant {

// 16-bit elements are told apart by type so that kernels can be templates over them.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

[[gnu::always_inline]] inline float to_float(float value) { return value; }
[[gnu::always_inline]] inline float to_float(BFloat16 value) {
  return bfloat16_to_float(value.bits);
}
[[gnu::always_inline]] inline float to_float(Float16 value) { return float16_to_float(value.bits); }

[[gnu::always_inline]] inline void store(float value, float& out) { out = value; }
[[gnu::always_inline]] inline void store(float value, BFloat16& out) {
  out.bits = float_to_bfloat16(value);
}
[[gnu::always_inline]] inline void store(float value, Float16& out) {
  out.bits = float_to_float16(value);
}

// max |x| as fp32. Compared as integers: the order is that of the magnitudes, exact and independent
// of the order of comparison, and a NaN wins over everything, so that it cannot hide.
template <typename T>
[[gnu::always_inline]] inline float absolute_maximum(const T* values, int64_t count) {
  if constexpr (sizeof(T) == 4) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu;
      most = magnitude > most ? magnitude : most;
    }
    return std::bit_cast<float>(most);
  } else {
    uint16_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t magnitude = values[i].bits & 0x7fffu;
      most = magnitude > most ? magnitude : most;
    }
    return to_float(T{most});
  }
}

}  // namespace qlora::quant
