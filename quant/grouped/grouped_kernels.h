// Kernels of grouped.h on raw pointers.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::quant {

// A weight's rows, from row 0 on; scales and zeros are [rows, groups].
struct GroupedRows {
  int bits;
  int64_t rows, in, groups;  // in, groups: below 2^31
  int64_t group_size;  // where group_of is null; a single group may be said to be larger than `in`
  int64_t row_bytes;   // a multiple of 4
  const uint8_t* codes;  // [rows, row_bytes]
  const void* scales;
  ElementType scale_type;
  const uint8_t* byte_zeros;  // or null
  const void* float_zeros;    // or null
  ElementType zero_type;      // of float_zeros
  float zero;                 // every zero where both are null
  const int32_t* group_of;    // [in], or null
};

struct GroupedDequantizeArguments {
  GroupedRows weight;
  int64_t begin, end;  // rows
  void* out;           // [end - begin, in]
  ElementType type;
};

namespace cpu {
// codes [rows, in], a byte each, to packed rows of `row_bytes`, which hold zeros before; and back.
void pack_codes(const uint8_t* codes, int64_t rows, int64_t in, int bits, int64_t row_bytes,
                uint8_t* packed);
void unpack_codes(const uint8_t* packed, int64_t rows, int64_t in, int bits, int64_t row_bytes,
                  uint8_t* codes);
void dequantize_grouped(const GroupedDequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void dequantize_grouped(const GroupedDequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
