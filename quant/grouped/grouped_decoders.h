// Dequantization of single rows on the CPU, the hot loop of every forward and backward pass.
//
// A group has one scale and one zero, so that 4 bits have at most 16 different results, each
// rounded to the output type once: the decoders of nibbles make these 16 and then only look codes
// up, with byte or word shuffles. Other widths, and groups that are no multiples of 32 columns, are
// unpacked to a byte a code first, which becomes a float that is computed with (grouped_loops.h).
#pragma once

#include <cstdint>

#include "quant/grouped/grouped_kernels.h"

namespace qlora::quant::cpu {

// Columns of one row, from the first of a group on.
struct GroupedRow {
  const uint8_t* codes;  // nibbles, the low one first; or a byte each
  int64_t columns, group_size;
  const float *scales, *zeros;  // of the groups
};

// Scales and zeros of rows [first, first + rows) as floats, each [rows, groups].
void widen_scales_and_zeros(const GroupedRows& weight, int64_t first, int64_t rows, float* scales,
                            float* zeros);

constexpr int64_t kNibbleUnit = 32;  // columns

// Nibbles; columns and group_size are multiples of kNibbleUnit. `out`: [columns].
void decode_nibbles_avx512(const GroupedRow& row, ElementType type, void* out);
void decode_nibbles_avx2(const GroupedRow& row, ElementType type, void* out);

}  // namespace qlora::quant::cpu
