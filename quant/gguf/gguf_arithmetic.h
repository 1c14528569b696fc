// What the element decoders of gguf_elements.h compute with, on the CPU and on CUDA: fp16 scales,
// the 6-bit scales of K blocks, MXFP4's numbers, and products and sums that are rounded on their
// own.
#pragma once

#include <cstdint>
#include <cstring>

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

// MXFP4 as ggml computes it, with numbers doubled and scales halved.
//
// The 16 numbers of E2M1, doubled; -0 is 0.
constexpr float kDoubledE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

QLORA_ELEMENT int doubled_e2m1(int code) {
  const int bits = code & 7;
  const int magnitude = bits < 4 ? bits : (2 | (bits & 1)) << (bits / 2 - 1);
  return (code & 8) != 0 ? -magnitude : magnitude;
}

// E8M0, halved: 2^(code - 128).
QLORA_ELEMENT float halved_e8m0(uint8_t code) {
  const uint32_t bits = code < 2 ? 0x00200000u << code : static_cast<uint32_t>(code - 1) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace qlora::quant::gguf
