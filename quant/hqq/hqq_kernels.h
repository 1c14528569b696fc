// Kernels of quant/formats/hqq_weight.h on raw pointers. HQQ cuts the flat weight into a grouped
// matrix [rows, columns] and packs its rows in `parts` of equal size on top of each other: the
// field of part p has all but the lowest bits * (parts - 1 - p) bits shifted away. Where a group is
// a row (axis 1), the row has a scale and a zero, else the column.
//
//   W = (field - zero) * scale
//
// in fp32, each operation rounded by itself, and rounded to the output's type. The CPU's and CUDA's
// give the same bits.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "quant/elements/element_type.h"

namespace qlora::quant {

// Fields of a packed byte, or of a packed 32-bit word for 3 bits.
QLORA_HOST_DEVICE inline int hqq_parts(int bits) { return bits == 3 ? 10 : 8 / bits; }

struct HqqDequantizeArguments {
  const void* packed;  // [packed_rows, columns], uint8, for 3 bits int32
  int bits;            // 1, 2, 3, 4 or 8
  int64_t packed_rows, columns;
  const void *scales, *zeros;  // [rows] if a group is a row, else [columns]
  ElementType scale_type;      // of both
  bool groups_are_rows;
  int64_t begin, end;  // elements of the flat weight
  void* out;           // [end - begin]
  ElementType type;
};

namespace cpu {
void dequantize_hqq(const HqqDequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void dequantize_hqq(const HqqDequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
