// How a kernel reads and writes its elements: fp32 as they are, bf16 (as 16 raw bits) and fp16
// through fp32.
#pragma once

#include "base/bfloat16.h"

namespace qlora {

using Float16 = _Float16;

[[gnu::always_inline]] inline float load(float value) { return value; }
[[gnu::always_inline]] inline float load(uint16_t bits) { return bfloat16_to_float(bits); }
[[gnu::always_inline]] inline float load(Float16 value) { return static_cast<float>(value); }
[[gnu::always_inline]] inline void store(float value, float& out) { out = value; }
[[gnu::always_inline]] inline void store(float value, uint16_t& out) {
  // Without the NaN case of float_to_bfloat16: rounding a quiet NaN keeps it a NaN, and the loop
  // vectorises.
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  out = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
[[gnu::always_inline]] inline void store(float value, Float16& out) {
  out = static_cast<Float16>(value);
}

}  // namespace qlora
