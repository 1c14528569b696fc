// Kernels of int8.h on raw pointers.
#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::quant {

struct Int8QuantizeArguments {
  const void* x;
  ElementType type;
  int64_t rows, columns;
  float threshold;  // 0: every element counts
  bool saturate;    // clamp to fp16's range instead of overflowing to infinity
  int8_t* codes;
  float* absmax;      // of what is below the threshold
  uint8_t* outliers;  // [columns], set to 1 where an element reaches the threshold; may be null
};

// out = products * (row_absmax * column_absmax) * (1 / 127²)
struct Int8ScaleArguments {
  const int32_t* products;
  int64_t rows, columns;
  const float* row_absmax;
  const float* column_absmax;
  void* out;
  ElementType type;
};

struct Int8DequantizeArguments {
  const int8_t* codes;
  const float* absmax;
  int64_t rows, columns;
  void* out;
  ElementType type;
};

constexpr float kLargestHalf = 65504.0f;  // that fp16 holds
constexpr float kOne127th = 7.874015718698502e-3f;

namespace cpu {
constexpr float kOne127Squared =
    6.200124e-05f;  // bitsandbytes' on the CPU; 1/16129 is 6.2000124e-05

// Codes and their rows' scales; the stride is of codes.
struct Int8Rows {
  const int8_t* codes;
  int64_t stride;
  const float* absmax;
};

void quantize_int8(const Int8QuantizeArguments& arguments);
// The same of bf16 elements, where has_avx512_bfloat16().
void quantize_int8_bfloat16_avx512(const Int8QuantizeArguments& arguments);
void scale_int8_products(const Int8ScaleArguments& arguments);
void dequantize_int8(const Int8DequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void quantize_int8(const Int8QuantizeArguments& arguments, void* stream);
void scale_int8_products(const Int8ScaleArguments& arguments, void* stream);
void dequantize_int8(const Int8DequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant
