// IEEE half precision as 16 raw bits, for the kernels that may not include torch. Rounds to
// nearest, ties to even, as torch does; NaN stays NaN. Both directions are exact selections without
// branches, so that loops around them vectorise.
#pragma once

#include <bit>
#include <cstdint>

namespace qlora {

inline float float16_to_float(uint16_t bits) {
  const uint32_t magnitude = bits & 0x7fffu;
  const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  const uint32_t normal = (magnitude << 13) + (112u << 23);  // exponent bias 15 -> 127
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  const uint32_t value = magnitude < 0x400u ? subnormal : magnitude < 0x7c00u ? normal : special;
  return std::bit_cast<float>(value | (static_cast<uint32_t>(bits & 0x8000u) << 16));
}

inline uint16_t float_to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Below 2^-14 the half's last place is 2^-24, that of floats in [0.5, 1): adding 0.5 rounds
  // there.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f);
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above round to infinity
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
}

}  // namespace qlora
