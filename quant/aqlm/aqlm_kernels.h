// Kernels of quant/formats/aqlm_weight.h on raw pointers. The weight is cut into blocks of
// out_group rows and in_group columns; a block is a sum of one entry of each codebook, times the
// scale of its rows:
//
//   W[o, i] = scale[o] * (codebook[0][code[o, i, 0]] + codebook[1][code[o, i, 1]] + ...)
//
// in fp32, the sum from 0 in the order of the codebooks, and rounded to the output's type. The
// CPU's and CUDA's give the same bits.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::quant {

struct AqlmDequantizeArguments {
  const void* codes;      // [row blocks, column blocks, num_codebooks], of int8 or int16
  bool codes_are_16_bit;  // an entry's index is the code modulo `entries`
  const void* codebooks;  // [num_codebooks, entries, out_group, in_group]
  ElementType codebook_type;
  const void* scales;  // [row blocks]
  ElementType scale_type;
  int64_t num_codebooks, entries;  // entries: a power of two
  int64_t out_group, in_group, column_blocks;
  int64_t begin, end;  // rows
  void* out;           // [end - begin, column_blocks * in_group]
  ElementType type;

  int64_t in() const { return column_blocks * in_group; }
};

namespace cpu {
void dequantize_aqlm(const AqlmDequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void dequantize_aqlm(const AqlmDequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
