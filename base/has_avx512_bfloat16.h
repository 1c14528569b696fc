// Whether this machine has the instructions of base/bfloat16_tile_avx512.h; for the code that
// chooses between kernels, which is compiled for every machine.
#pragma once

namespace qlora::avx512 {

inline bool machine_has_them() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

}  // namespace qlora::avx512
