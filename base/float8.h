// Numbers of 8 bits (OCP 8-bit Floating Point and Microscaling Formats 1.0) for the kernels that
// may not include torch.
#pragma once

#include <bit>
#include <cstdint>

#include "base/float16.h"

namespace qlora {

// E4M3: sign, 4 bits of exponent with bias 7, 3 of fraction; up to 448, without infinities. The
// codes 0x7f and 0xff are NaN and come out as 480 and -480: whoever reads a file refuses them.
// fp16 has an exponent of one bit more with bias 15, subnormals included: 2^8 times smaller.
inline float e4m3_to_float(uint8_t code) {
  const auto half = static_cast<uint16_t>(((code & 0x80u) << 8) | ((code & 0x7fu) << 7));
  return float16_to_float(half) * 256.0f;
}

// E8M0: 2^(code - 127). The code 255 is NaN and comes out as infinity.
inline float e8m0_to_float(uint8_t code) {
  return std::bit_cast<float>(code == 0 ? 0x00400000u : static_cast<uint32_t>(code) << 23);
}

}  // namespace qlora
