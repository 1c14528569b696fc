// bfloat16 as 16 raw bits, for the kernels that may not include torch. Rounds to nearest, ties to
// even, as torch does; NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace qlora {

inline float bfloat16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

}  // namespace qlora
