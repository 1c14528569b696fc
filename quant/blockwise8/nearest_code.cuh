// The 8-bit code of a value, as bitsandbytes' CUDA path finds it: the entry of the map nearest to x
// by midpoints. On a tie its search keeps the entry it reached, which is always the even one.
#pragma once

#include <cstdint>

namespace qlora::quant::cuda {

// map: 256 ascending entries, best in shared memory. A NaN takes code 0.
__device__ inline uint8_t nearest_code(const float* map, float x) {
  int code = 0;  // the number of midpoints below x
#pragma unroll
  for (int step = 128; step > 0; step /= 2) {
    const int lower = code + step - 1;  // the bound between entries `lower` and `lower + 1`
    const float middle = __fmul_rn(__fadd_rn(map[lower], map[lower + 1]), 0.5f);
    const bool above = lower % 2 == 0 ? x > middle : x >= middle;
    code += above ? step : 0;
  }
  return static_cast<uint8_t>(code);
}

}  // namespace qlora::quant::cuda
