// Numbers that a Python script can draw too, bit for bit (tests/interop/bitsandbytes_optim.py): an
// integer hash of index and stream, in (-1, 1) times 2^-(0..15) with the exponent by runs of 64;
// element 7 of 97 and block 3 of 256 are zero.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace qlora::test {

inline std::vector<float> hashed_numbers(int64_t count, uint32_t stream) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + stream * 2246822519u + 374761393u;
    for (const uint32_t multiplier : {2246822519u, 3266489917u}) {
      x ^= x >> 15;
      x *= multiplier;
    }
    x ^= x >> 16;
    const int whole = static_cast<int>(x >> 8) - (1 << 23);
    const bool zero = i % 97 == 7 || i / 256 == 3;
    numbers[static_cast<size_t>(i)] =
        zero ? 0.0f : std::ldexp(static_cast<float>(whole), -23 - static_cast<int>(i / 64 % 16));
  }
  return numbers;
}

}  // namespace qlora::test
