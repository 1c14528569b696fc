// What the element decoders of gguf_elements.h compute with, on the CPU and on CUDA: fp16 scales,
// the 6-bit scales of K blocks, and products and sums that are rounded on their own.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define QLORA_ELEMENT __host__ __device__ inline
#else
#include "base/float16.h"
#define QLORA_ELEMENT inline
#endif

namespace qlora::quant::gguf {

QLORA_ELEMENT float half_at(const uint8_t* bytes) {
  const auto bits = static_cast<uint16_t>(bytes[0] | (bytes[1] << 8));
#ifdef __CUDACC__
  __half_raw raw;
  raw.x = bits;
  return __half2float(__half(raw));
#else
  return float16_to_float(bits);
#endif
}

// Rounded on their own: nvcc would contract a product and a sum.
QLORA_ELEMENT float product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

QLORA_ELEMENT float sum(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

QLORA_ELEMENT float difference(float a, float b) { return sum(a, -b); }

// Scale and minimum of one of 8 sub-blocks: 6 bits each, in 12 bytes.
struct SixBits {
  int scale, minimum;
  QLORA_ELEMENT SixBits(const uint8_t* s, int group) {
    if (group < 4) {
      scale = s[group] & 63;
      minimum = s[group + 4] & 63;
    } else {
      scale = (s[group + 4] & 15) | ((s[group - 4] >> 6) << 4);
      minimum = (s[group + 4] >> 4) | ((s[group] >> 6) << 4);
    }
  }
};

}  // namespace qlora::quant::gguf
