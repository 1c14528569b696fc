// Kernels of nf4.h on raw pointers.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"
#include "quant/nf4/four_bit_tables.h"

namespace qlora::quant {

struct FourBitQuantizeArguments {
  const void* weight;
  ElementType type;
  FourBitCode code;
  int64_t count, block_size;
  uint8_t* packed;  // [ceil(count / 2)]
  float* absmax;    // [ceil(count / block_size)]; not finite where a block holds an infinity or NaN
};

// Scales of the blocks: either fp32, or 8-bit codes with scales of their own.
struct FourBitScales {
  const float* absmax;  // null if double-quantized
  const uint8_t* codes;
  const float* nested_absmax;
  const float* map;     // 256 entries
  const float* offset;  // one value
  int nested_shift;     // log2 of the number of scales that share a nested scale
};

struct FourBitDequantizeArguments {
  const uint8_t* packed;
  FourBitScales scales;
  FourBitCode code;
  int64_t block_size;
  int64_t begin, end;  // elements of the flat weight
  void* out;           // [end - begin]
  ElementType type;
};

namespace cpu {
void quantize_four_bit(const FourBitQuantizeArguments& arguments);
void dequantize_four_bit(const FourBitDequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void quantize_four_bit(const FourBitQuantizeArguments& arguments, void* stream);
void dequantize_four_bit(const FourBitDequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
