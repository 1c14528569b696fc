// Kernels of quant/formats/fp8_weight.h on raw pointers: E4M3 codes with a scale for each block of
// rows and columns, widened to fp32, multiplied there and rounded to the output's type. The CPU's
// and CUDA's give the same bits.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::quant {

enum class Fp8ScaleType { kFloat32, kBFloat16, kFloat16, kE8M0 };

struct Fp8DequantizeArguments {
  const uint8_t* codes;  // [rows, in]
  const void* scales;    // [ceil(rows / block_rows), ceil(in / block_columns)]
  Fp8ScaleType scale_type;
  int64_t in, block_rows, block_columns;
  int64_t begin, end;  // rows
  void* out;           // [end - begin, in]
  ElementType type;

  int64_t grid_columns() const { return (in + block_columns - 1) / block_columns; }
};

namespace cpu {
void dequantize_fp8(const Fp8DequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void dequantize_fp8(const Fp8DequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
