// Kernels of quant/formats/mxfp4_weight.h on raw pointers: blocks of 32 numbers in 4 bits (E2M1)
// with a power of two each (E8M0), multiplied in fp32 and rounded to the output's type. The CPU's
// and CUDA's give the same bits.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::quant {

constexpr int64_t kMxfp4Block = 32;  // numbers

// The 16 numbers of E2M1: sign, 2 bits of exponent with bias 1, one of fraction.
constexpr float kE2m1Table[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                  -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

struct Mxfp4DequantizeArguments {
  const uint8_t* packed;  // [blocks, 16], a byte's low half first
  const uint8_t* scales;  // [blocks], exponents plus 127
  int64_t blocks;
  void* out;  // [blocks, 32]
  ElementType type;
};

namespace cpu {
void dequantize_mxfp4(const Mxfp4DequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void dequantize_mxfp4(const Mxfp4DequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
